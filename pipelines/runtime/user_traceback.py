"""Tell errors in a user's files from litlab's own, and show where in these files they were raised."""

import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipelines.runtime.log import logger
from pipelines.runtime.text import escape_control_characters, redact_credentials, whole_message

_PACKAGES = tuple(Path(__file__).parents[2] / name for name in ("datamodules", "modules", "pipelines", "sweeps"))
_LIBRARIES = {"site-packages", "dist-packages"}
WHOLE_TRACEBACK = "LITLAB_TRACEBACK"  # environment variable
_IN_A_WORKER = re.compile(r"Caught \w+ in DataLoader worker process")  # torch puts the traceback into the message


@dataclass(frozen=True)
class UserTraceback:
    """An error that was raised in a user's file, by what the file called, or by Lightning on its behalf.

    Attributes:
        error: The exception.
        traceback: Its traceback, cut to the user's files; "" if it has none of them.
        message: Type and message, such as "ValueError: too many values to unpack (expected 2)".
    """

    error: BaseException
    traceback: str
    message: str

    @property
    def line(self) -> str:
        """Type and first line of the message."""
        return self.message.partition("\n")[0]

    def show(self) -> None:
        """Print traceback and message to stderr; the whole traceback if the environment variable asks for it."""
        whole = os.environ.get(WHOLE_TRACEBACK, "") not in ("", "0")
        if whole:
            traceback.print_exception(self.error)
        elif self.traceback:
            print(escape_control_characters(self.traceback), file=sys.stderr, flush=True)
        logger.error("%s", escape_control_characters(self.message))
        if not (whole or self.traceback):
            logger.info(f"none of your files is in the traceback; {WHOLE_TRACEBACK}=1 shows all of it")


def user_traceback(error: BaseException) -> UserTraceback | None:
    """Return what to show of an error that comes from a user's file; None if it comes from elsewhere.

    The causes of the error are searched too: a library may have wrapped it. An error that litlab itself raised, such as
    a data module for a wrong value, comes from elsewhere even if a user's file called it. An error that Lightning
    raised, or what it called, is one of what it trains: a loss without gradient has no user's file in its traceback.
    """
    for link in _chain(error):
        if isinstance(link, KeyboardInterrupt | SystemExit):
            return None
        frames = traceback.extract_tb(link.__traceback__)
        if _IN_A_WORKER.match(str(link)):
            return _from_worker(link)
        syntax_error = isinstance(link, SyntaxError) and bool(link.filename) and is_user_file(str(link.filename))
        shown = [frame for frame in frames if is_user_file(frame.filename)]
        if syntax_error or (shown and not _is_litlabs(frames)):
            texts = traceback.format_list(shown)
            if syntax_error:
                texts += traceback.format_exception_only(link)[:-1]
            return UserTraceback(link, _join(texts), _message(link))
    by_lightning = (link for link in _chain(error) if _is_lightnings(traceback.extract_tb(link.__traceback__)))
    return next((UserTraceback(link, "", _message(link)) for link in by_lightning), None)


@cache
def is_user_file(name: str) -> bool:
    """Return whether a file is neither litlab's, nor of an installed package or Python itself."""
    if name.startswith("<"):  # the import system
        return False
    path = Path(name).absolute()
    if _LIBRARIES & set(path.parts) or _is_of_litlab(name):
        return False
    python = {sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    if any(path.is_relative_to(folder) for folder in python):
        return False
    on_path = {str(Path(entry).absolute()) for entry in sys.path}
    return not any(str(folder) in on_path and _has_packages(folder) for folder in path.parents)


def _has_packages(folder: Path) -> bool:
    """Return whether packages are installed in a folder, also by `pip install --target`."""
    return any(folder.glob("*.dist-info"))


def _is_litlabs(frames: traceback.StackSummary) -> bool:
    """Return whether litlab itself raised an error: it refuses a value, or it has a bug."""
    return _is_of_litlab(frames[-1].filename)


def _is_of_litlab(name: str) -> bool:
    path = Path(name).absolute()
    return any(path.is_relative_to(package) for package in _PACKAGES)


def _is_lightnings(frames: traceback.StackSummary) -> bool:
    """Return whether Lightning raised an error, or what it called, and not litlab."""
    for frame in reversed(frames):
        if _is_of_litlab(frame.filename):
            return False
        if "lightning" in Path(frame.filename).parts:
            return True
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _from_worker(error: BaseException) -> UserTraceback | None:
    """Return what to show of an error in a worker of a DataLoader, whose traceback is text."""
    frames = re.split(r'^(?=  File ")', str(error), flags=re.MULTILINE)[1:]
    *_, last = str(error).strip().splitlines()
    if not frames:
        return None
    frames[-1] = "".join(line for line in frames[-1].splitlines(keepends=True) if line.startswith("  "))
    shown = [frame for frame in frames if is_user_file(frame.split('"')[1])]
    return UserTraceback(error, _join(shown), redact_credentials(last)) if shown else None


def _join(frames: list[str]) -> str:
    return redact_credentials("Traceback (most recent call last), of your files only:\n" + "".join(frames)).rstrip()


def _message(error: BaseException) -> str:
    name = type(error).__name__
    return f"{name}: {whole_message(error)}" if str(error).strip() else name

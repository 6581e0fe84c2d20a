"""A `litlab` command in a warm process of its own; and what is to be known of processes, from /proc."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE_S = 400.0  # for a command that nobody kills


class Command:
    """A `litlab` command under way, in a process and a session of its own."""

    def __init__(self, process: Any, log: Path) -> None:
        self.process, self._log, self.began = process, log, time.monotonic()
        self._start = log.stat().st_size
        process.start()

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.began

    @property
    def text(self) -> str:
        """What it has printed until now."""
        return self._log.read_bytes()[self._start :].decode(errors="replace")

    @property
    def last(self) -> str:
        """The last line that it has printed."""
        return (self.text.strip().splitlines() or [""])[-1]

    def wait(self, seconds: float = PATIENCE_S) -> int | None:
        """The exit code; None if it has not ended after so many seconds."""
        self.process.join(max(0.0, seconds))
        code: int | None = self.process.exitcode
        return code

    def end(self) -> int:
        """Wait for the end; after `PATIENCE_S` it is killed, with exit code -9."""
        if self.wait() is None:
            self.kill()
        return int(self.process.exitcode)

    def kill(self) -> bool:
        """`kill -9`, and wait for the end; whether it was still alive."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.process.join()
        return bool(self.process.exitcode == -signal.SIGKILL)


def begin(argv: list[str], log: str, environment: dict[str, str], folder: str) -> None:
    """The process of a command."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    number = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(number, stream)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = argv
    sys.modules["__main__"].__spec__ = None  # Lightning looks at it to start further devices
    if "RANK" in environment:  # as Lightning does when it is imported
        from lightning.pytorch.utilities import rank_zero_only

        rank_zero_only.rank = int(environment["RANK"])  # type: ignore[attr-defined]
    from pipelines.cli import main

    sys.exit(main(argv[1:]))


def family(pid: int) -> list[int]:
    """A process and all that it has started."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def is_alive(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    return False


def until(condition: Callable[[], object], seconds: float = 120.0) -> bool:
    """Wait for something to become true; whether it has."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True

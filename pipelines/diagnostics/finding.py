"""What a check has found, and where it looks."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.runtime.environment import project_folder
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.uri import database_file, store_uri


@dataclass(frozen=True)
class Finding:
    """One line for a person.

    Attributes:
        name: What was looked at.
        said: How it is; with the state "to do", what to do.
        state: "fixed" is what `--fix` has just done.
    """

    name: str
    said: str
    state: Literal["ok", "fixed", "to do"] = "ok"


@dataclass(frozen=True)
class Place:
    """Where to look.

    Attributes:
        given: The tracking URI of the command line; None for the usual one.
        data_dir: Where data sets are, or will be.
        fix: Whether to mend what can be mended without deleting anything that somebody made.
    """

    given: str | None
    data_dir: Path
    fix: bool

    @property
    def uri(self) -> str:
        """Where runs are kept.

        Raises:
            UserError: What is named is no such place.
        """
        return store_uri(self.given)

    @property
    def database(self) -> Path | None:
        """The file that runs are kept in; None for a server."""
        return database_file(self.uri)

    @property
    def folder(self) -> Path:
        """Where databases and artifacts lie on this machine."""
        try:
            database = self.database
        except UserError:
            database = None
        return database.parent if database else project_folder()


Check = Callable[[Place], Iterable[Finding]]


def todo(name: str, said: str) -> Finding:
    return Finding(name, said, "to do")


def guarded(check: Callable[[], Iterable[Finding]], name: str) -> list[Finding]:
    """What a check finds; that it failed, if it did: one that breaks must not hide what the others find."""
    found: list[Finding] = []
    try:
        found += check()
    except Exception as error:  # whatever is broken here is what the doctor was called for
        lines = redact_credentials(str(error)).splitlines() or [type(error).__name__]
        said = lines[0] if isinstance(error, UserError) else f"could not be checked: {type(error).__name__}: {lines[0]}"
        found.append(todo(name, said))
    return found

"""A check: what it takes and what it returns."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.runtime.environment import project_folder
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.store import Store
from pipelines.tracking.uri import database_file, store_uri


@dataclass(frozen=True)
class CheckResult:
    """One result of a check.

    Attributes:
        name: What was checked.
        message: How it is; what to do about it, if the state is "to do".
        state: "ok"; "fixed" if it has just been repaired; "to do" if the check failed.
    """

    name: str
    message: str
    state: Literal["ok", "fixed", "to do"] = "ok"


@dataclass(frozen=True)
class Context:
    """What is checked, and whether it is repaired.

    Attributes:
        tracking_uri: As given on the command line; None for the default.
        data_dir: Where data sets are, or will be.
        fix: Whether to repair what can be repaired without deleting anything that a user made.
        free: Whether to delete permanently what deleted runs occupy.
    """

    tracking_uri: str | None
    data_dir: Path
    fix: bool
    free: bool = False

    @property
    def uri(self) -> str:
        """The URI of the tracking store.

        Raises:
            UserError: The tracking URI is wrong.
        """
        return store_uri(self.tracking_uri)

    @property
    def database(self) -> Path | None:
        """The database file of the runs; None for a server."""
        return database_file(self.uri)

    @property
    def folder(self) -> Path:
        """The folder of databases and artifacts on this machine."""
        return self.database.parent if self.database else project_folder()

    def open_store(self) -> Store | None:
        """Open the tracking store; None if there is no database yet, since none shall be created."""
        if self.database is not None and not self.database.exists():
            return None
        return Store(self.tracking_uri)


Check = Callable[[Context], Iterable[CheckResult]]


def failed(name: str, message: str) -> CheckResult:
    return CheckResult(name, message, "to do")


def run_check(check: Callable[[], Iterable[CheckResult]], name: str) -> list[CheckResult]:
    """Return the results of a check. An exception in it becomes a result, so that the other checks still run."""
    results: list[CheckResult] = []
    try:
        results += check()
    except Exception as error:  # whatever is broken here may be why the doctor was called
        lines = redact_credentials(str(error)).splitlines() or [type(error).__name__]
        known = isinstance(error, UserError)
        message = lines[0] if known else f"could not be checked: {type(error).__name__}: {lines[0]}"
        results.append(failed(name, message))
    return results

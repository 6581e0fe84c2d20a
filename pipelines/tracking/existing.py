"""Open a tracking store to read from it: a database that does not exist has no runs, and is not created."""

from pipelines.runtime.errors import UserError
from pipelines.tracking.store import Store
from pipelines.tracking.uri import database_file, store_uri


class NoRunsError(UserError):
    """There is no database."""


def existing_store(uri: str | None = None) -> Store:
    """Return the tracking store.

    Args:
        uri: See `store_uri`.

    Raises:
        NoRunsError: It is a file that does not exist.
        UserError: See `Store`.
    """
    file = database_file(store_uri(uri))
    if file is not None and not file.exists():
        raise NoRunsError(f"no runs in {file.parent}: there is no {file.name} yet, which the first run creates")
    return Store(uri)

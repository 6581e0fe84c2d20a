"""Links from a page to the runs in the MLflow UI."""

from collections.abc import Iterable
from urllib.parse import quote

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.store import Store, StoredRun


def ui_address(store: Store, given: str | None) -> str:
    """Return the address of the UI: the given one, or that of the tracking server; "" if it is not known.

    Raises:
        UserError: The given address is no http address.
    """
    if given is not None:
        if not given.startswith(("http://", "https://")):
            raise UserError(f"--ui {given}: expected an address such as http://127.0.0.1:5000")
        return given.rstrip("/")
    return redact_credentials(store.uri).rstrip("/") if store.uri.startswith("http") else ""


def run_links(address: str, runs: Iterable[StoredRun]) -> dict[str, str]:
    """Return the address of each run's page by its id; nothing without an address of the UI."""
    if not address:
        return {}
    return {run.run_id: f"{address}/#/experiments/{quote(run.experiment_id)}/runs/{run.run_id}" for run in runs}

"""Check the installation, the databases, the runs and the data. Imports no torch: that is checked in a process."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pipelines.diagnostics import databases, moved, runs, storage, torch_process
from pipelines.diagnostics.check import Check, CheckResult, Context, run_check

CHECKS: dict[str, Check] = {
    "torch pair": torch_process.check_torch_pair,
    "optuna.db": databases.check_studies,
    "unsent": runs.check_unsent,
    "leftovers": storage.check_leftovers,
}
STORE_CHECKS: dict[str, Check] = {  # if the database is readable
    "moved": moved.check_moved,
    "runs": runs.check_orphans,
    "disk": storage.check_disk,
}


def diagnose(
    *, fix: bool = False, free: bool = False, data_dir: Path = Path("data"), tracking_uri: str | None = None
) -> list[CheckResult]:
    """Check the installation, the databases, the runs and the data, and repair what can be repaired.

    Args:
        fix: Whether to upgrade the tables of an older MLflow or Optuna and to correct the paths in a database that was
            moved (both after a copy), end runs whose process is gone, and delete unfinished files. Nothing that a user
            made is deleted.
        free: Whether to delete permanently the runs that were deleted in MLflow, and their models.
        data_dir: Where data sets are.
        tracking_uri: Where runs are stored; by default the project's mlflow.db.

    Returns:
        One result or more for each check; those with the state "to do" say what to do.
    """
    return list(iterate_checks(Context(tracking_uri, data_dir, fix, free)))


def iterate_checks(context: Context) -> Iterator[CheckResult]:
    """Run all checks, and yield their results as they come. Torch is checked in a separate process meanwhile."""
    with torch_process.start(context.data_dir) as process:
        try:
            for name, check in CHECKS.items():
                yield from run_check(partial(check, context), name)
            store = run_check(partial(databases.check_runs_database, context), "mlflow.db")
            yield from store
            readable = all(result.state != "to do" for result in store)
            for name, check in STORE_CHECKS.items() if readable else ():
                yield from run_check(partial(check, context), name)
            yield from torch_process.results(process)
        finally:
            process.kill()

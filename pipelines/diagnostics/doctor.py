"""Check the installation, the machine, the databases and the runs. Imports no torch: that is checked elsewhere."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from pipelines.diagnostics import databases, installation, machine, runs
from pipelines.diagnostics.check import Check, CheckResult, Context, run_check
from pipelines.diagnostics.torch_process import TorchProcess

CHECKS: dict[str, Check] = {
    "Python": installation.check_python,
    "packages": installation.check_packages,
    "torch pair": installation.check_torch_pair,
    "git": installation.check_git,
    "disk": machine.check_disk,
    "writing": machine.check_writing,
    "memory": machine.check_memory,
    "ports": machine.check_ports,
    "leftovers": machine.check_leftovers,
    "optuna.db": databases.check_studies,
}


def diagnose(*, fix: bool = False, data_dir: Path = Path("data"), tracking_uri: str | None = None) -> list[CheckResult]:
    """Check the installation, the machine, the databases and the runs, and repair what can be repaired.

    Args:
        fix: Whether to upgrade the tables of an older MLflow or Optuna (after a copy), end runs whose process is gone,
            and delete unfinished files. Nothing that a user made is deleted.
        data_dir: Where data sets are.
        tracking_uri: Where runs are stored; by default the project's mlflow.db.

    Returns:
        One result or more for each check; those with the state "to do" say what to do.
    """
    return list(iterate_checks(Context(tracking_uri, data_dir, fix)))


def iterate_checks(context: Context) -> Iterator[CheckResult]:
    """Run all checks, and yield their results as they come. Torch is checked meanwhile in a process of its own."""
    torch_process = TorchProcess(context.data_dir)
    for name, check in CHECKS.items():
        yield from run_check(partial(check, context), name)
    store = run_check(partial(databases.check_runs_database, context), "mlflow.db")
    yield from store
    is_readable = all(result.state != "to do" for result in store)
    if is_readable:
        yield from run_check(partial(runs.check_orphans, context), "runs")
    yield from run_check(partial(runs.check_unsent, context), "unsent")
    yield from torch_process.results(_checkpoints(context) if is_readable else [])


def _checkpoints(context: Context) -> list[Path]:
    with suppress(Exception):  # the result of the runs has what is wrong with the store
        return runs.unfinished_checkpoints(context)
    return []

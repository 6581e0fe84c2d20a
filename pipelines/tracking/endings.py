"""End a run with a block of code, and tell the user's command how it ended."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipelines.runtime.errors import StoppedError
from pipelines.runtime.notify import notify
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.run import Run

Measured = tuple[str, float]  # a metric and its value


@contextmanager
def recorded(run: Run) -> Iterator[Run]:
    """End the run when the block ends: FINISHED, KILLED if it was stopped, FAILED after any other exception."""
    try:
        yield run
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit | BrokenPipeError | StoppedError)
        reason = str(error) if isinstance(error, StoppedError) else f"{type(error).__name__}: {error}".rstrip(": ")
        if run.terminal is not None:
            run.terminal.add_error(error, where=not stopped)
        run.finish("KILLED" if stopped else "FAILED", reason)
        raise
    run.finish("FINISHED")


@contextmanager
def notified(command: str, run: Run, experiment: str, measured: Callable[[], Measured | None]) -> Iterator[None]:
    """Run a command after the block, in which the run ends, however it ends.

    Args:
        command: Of `--notify`; "" for none.
        run: The run.
        experiment: Name of its MLflow experiment.
        measured: Returns the metric that selects, and its best value; None if there is none yet.
    """
    try:
        yield
    finally:
        if command:
            try:
                metric, value = measured() or ("", None)
            except Exception:  # the study's database is lost, which has been reported
                metric, value = "", None
            facts = {
                "LITLAB_RUN_ID": run.run_id,
                "LITLAB_RUN_NAME": run.name,
                "LITLAB_EXPERIMENT": experiment,
                "LITLAB_STATUS": run.status,
                "LITLAB_REASON": run.reason,
                "LITLAB_METRIC": metric,
                "LITLAB_VALUE": "" if value is None else f"{value:.6g}",
                "LITLAB_TRACKING_URI": redact_credentials(run.store.uri),
            }
            notify(command, facts)

"""End a run by how its block ends."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.runtime.errors import StoppedError
from pipelines.tracking.run import Run


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

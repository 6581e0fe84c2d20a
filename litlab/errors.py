"""What litlab raises: `UserError` for a mistake of the user, `RunFailedError` for a run that failed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipelines.runtime.errors import UserError as UserError

if TYPE_CHECKING:
    from litlab.run import Run
    from pipelines.config.objects import Objects


class RunFailedError(RuntimeError):
    """A run failed; the message says why. What was raised in the training is the cause.

    Attributes:
        run: The run, with what it had logged until then.
        resume_command: The command that continues it; "" if it would fail again.
    """

    __module__ = "litlab"

    def __init__(self, message: str, run: "Run", *, resume_command: str = "") -> None:
        super().__init__(message)
        self.run, self.resume_command = run, resume_command

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: the traceback of what was raised in the training, cut to the user's files."""
        from pipelines.runtime.user_traceback import user_traceback

        found = None if self.__cause__ is None else user_traceback(self.__cause__)
        lines = [found.traceback, found.message] if found and found.traceback else []
        return [*lines, f"{type(self).__name__}: {self}", *getattr(self, "__notes__", [])]


@contextmanager
def failures_with_run(tracking_uri: str | None, objects: "Objects | None") -> Iterator[None]:
    """Raise `RunFailedError` of this module, which has the run with its objects, for a run that fails in the block."""
    from litlab.run import Run
    from pipelines.training import failures

    try:
        yield
    except failures.RunFailedError as failed:
        run = Run(failed.run_id, tracking_uri, objects=objects)
        error = RunFailedError(str(failed), run, resume_command=failed.resume_command)
        kept = " Metrics logged so far are kept." if failed.has_metrics else ""
        error.add_note(f"Run {failed.run_id} failed.{kept}")
        if failed.advice:
            error.add_note(failed.advice)
        raise error from failed.__cause__

"""Run a study from its first trial to its results: search, clean up, confirm, log."""

from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import redact_credentials
from sweeps.search.confirm import confirm
from sweeps.search.context import SearchContext
from sweeps.search.controller import Controller
from sweeps.search.heartbeat import called
from sweeps.search.study_run import copy_best, log_summary
from sweeps.search.summary import Confirmed


def run_study(context: SearchContext, default_point: dict[str, Any]) -> Confirmed:
    """Search, then confirm. Whatever happens, nothing is left active, and the study's run has the results so far.

    Args:
        context: The study and what its trainings need.
        default_point: The experiment's own values of the searched keys; empty if they lie outside the space.

    Returns:
        The finished runs on fresh seeds; empty if another controller trains them.

    Raises:
        UserError: The tracking server or the study's database is lost, or no trial can succeed.
    """
    from mlflow.exceptions import MlflowException
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return _search_and_confirm(context, default_point)
    except (MlflowException, StorageInternalError, SQLAlchemyError) as error:
        # Optuna's own message has less than its cause
        reason = redact_credentials(str(error.__cause__ or error).splitlines()[0])
        raise UserError(
            f"Lost the tracking server or study database. Run the same command again to continue. ({reason})"
        ) from error


def _search_and_confirm(context: SearchContext, default_point: dict[str, Any]) -> Confirmed:
    controller, study = Controller(context), context.study
    status, is_last, confirmed = "FAILED", False, Confirmed()
    try:
        controller.search()
        is_last = not study.has_company() if context.stop_requests else study.take_end()
        if is_last:
            if best := controller.runs.prune_checkpoints():
                copy_best(context.parent, best)
            confirmed = confirm(context, default_point, train=not context.stop_requests)
        elif not context.stop_requests:
            others = " and ".join(map(called, study.enders())) or "others"
            context.display.print(f"{study.name}: {others} will finish the study")
        status = "KILLED" if context.stop_requests else "FINISHED"
    finally:
        _finish(controller, context, status, confirmed, is_last=is_last)
    return confirmed


def _finish(
    controller: Controller, context: SearchContext, status: str, confirmed: Confirmed, *, is_last: bool
) -> None:
    """End everything that is active, log the results, and end the study's run if no other controller continues it."""
    try:
        controller.close()
        is_last = is_last or not context.study.has_company()  # else another controller does the rest
        if is_last and context.stop_requests < 2:
            log_summary(context.parent, context.study, confirmed)
    except BaseException:
        is_last = True
        raise
    finally:
        if is_last:
            context.parent.finish(status, "stopped" if context.stop_requests else "")
        else:
            context.parent.leave()

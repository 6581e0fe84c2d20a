"""Test finished runs that were trained without a test, such as those of folds."""

from typing import Any

from datamodules.in_memory import InMemoryDataModule
from pipelines.evaluation.evaluate import evaluate, kept_predictions
from pipelines.evaluation.load_run import load_run
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.status import show_status
from pipelines.tracking.measured import test_metrics
from pipelines.tracking.run import Run
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import SELECTED_EPOCH
from pipelines.training.results import log_test_metrics, why_no_test
from pipelines.training.resume import note_commit


def add_test(run: StoredRun) -> None:
    """Test the selected weights of a run, unless it was tested, and log the results and the test set in it.

    A run that cannot be tested, for example because it kept no checkpoint, is left as it is, with a warning.

    Raises:
        UserError: The tracking store cannot be reached.
    """
    if test_metrics(run.metrics, run.tags):
        return
    show_status(f"testing run {run.name}")
    try:
        loaded = load_run(run, stages=["test"], weights=False)
        reason = why_no_test(loaded.cli, loaded.model, loaded.data)
    except UserError as error:
        reason = str(error)
    if reason:
        logger.warning("No test of run %s: %s", run.name, reason)
        return
    tested = evaluate("test", loaded.cli, loaded.model, loaded.data, loaded.checkpoint)
    kept = kept_predictions(tested, loaded.data) if loaded.cli.config.keep_predictions else None
    reopened = Run.reopen(run)
    try:
        note_commit(reopened, run)
        if isinstance(loaded.data, InMemoryDataModule):
            reopened.log_dataset(_describe_test_set(loaded.data), "testing")
        log_test_metrics(reopened, tested.metrics, int(run.metrics[SELECTED_EPOCH]), run.metrics)
        if kept is not None:
            kept.save(reopened.folder)
    finally:
        reopened.finish("FINISHED")


def _describe_test_set(data: InMemoryDataModule) -> dict[str, Any]:
    tested = data.test_set
    return {"source": type(data).__name__, "sizes": {"test": len(tested)}, "sha256": {"test": tested.digest()}}

"""Test finished runs that were trained without a test, such as those of folds."""

from datamodules.in_memory import InMemoryDataModule
from pipelines.evaluation.evaluate import evaluate, kept_predictions
from pipelines.evaluation.load_run import load_run
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.status import show_status
from pipelines.tracking.measured import test_metrics
from pipelines.tracking.run import Run
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import DATA_HASH_TAG, SELECTED_EPOCH
from pipelines.training.results import log_test_metrics, why_no_test


def add_test(run: StoredRun) -> None:
    """Test the selected weights of a run, unless it was tested, and log the results in it.

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
        if isinstance(loaded.data, InMemoryDataModule):
            reopened.set_tags({f"{DATA_HASH_TAG}.test": loaded.data.test_set.digest()})
        log_test_metrics(reopened, tested.metrics, int(run.metrics[SELECTED_EPOCH]), run.metrics)
        if kept is not None:
            kept.save(reopened.folder)
    finally:
        reopened.finish("FINISHED")

"""`litlab fit`: train an experiment."""

import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipelines.runtime.gc_pause import gc_paused_for_import
from pipelines.runtime.log import logger

if TYPE_CHECKING:
    from pipelines.training.failures import RunFailedError
    from pipelines.training.results import FitResult

HELP = """usage: litlab fit NAME [--KEY VALUE ...]         (litlab list shows the names)
       litlab fit -c FILE [-c FILE ...] [--KEY VALUE ...]

Train an experiment, select the best epoch on the validation set and test it
once. Configuration, metrics, figures, checkpoints and model are logged to one
MLflow run.

  NAME or PATH               an experiment, or a YAML file like an experiment's
  -c, --config FILE          another YAML file; later files take precedence
  --seed_everything 3        seed of weights, order, dropout, augmentation (0)
  --seeds 5 --workers 2      five runs with consecutive seeds, two at a time,
                               and a parent run with mean and spread
  --data.batch_size 100      any key of the data
  --data.n_train 250         size of the training subset
  --model.dropout 0.3        any key of the model
  --model.optimizer.lr 0.01  any key of its optimizer (--model.optimizer SGD)
  --trainer.max_epochs 6     any argument of Lightning's Trainer
  --tracking_uri URI         sqlite:///FILE or http://SERVER (mlflow.db here)
  --name NAME                the MLflow experiment (the name of the experiment)
  --print_config             print the resolved configuration and exit
  --full-help                print every argument of the Trainer
  --model.help CLASS         print every argument of a model (modules.mlp.MLP)
  --data.help CLASS          ... of a data module (datamodules.mnist.MNIST)"""


def main(verb: str, argv: Sequence[str]) -> int:
    """Parse `litlab fit NAME | PATH | -c FILE [--key value ...]`, train, and print the results."""
    if not argv or {"-h", "--help"} & set(argv):
        print(HELP)
        return 0 if argv else 2
    from pipelines.tracking import writer_process

    writer_process.start(argv)  # before torch is imported
    try:
        with gc_paused_for_import("pipelines.training.fit"):
            from pipelines.config.cli import print_full_help
            from pipelines.training.fit import fit
        if "--full-help" in argv:
            print_full_help()
        experiment, overrides = (None, argv) if argv[0].startswith("-") else (argv[0], argv[1:])
        return run_and_report(lambda: fit(experiment, overrides=overrides))
    finally:
        writer_process.stop()


def run_and_report(train: "Callable[[], FitResult | None]") -> int:
    """Train, print the results or why there are none, and return the exit code."""
    from pipelines.config.distributed import is_rank_zero
    from pipelines.training.failures import RunFailedError

    try:
        result = train()
    except (KeyboardInterrupt, SystemExit, BrokenPipeError) as stop:
        notes = getattr(stop, "__notes__", [])  # none if there is no run yet
        for note in notes:
            logger.warning("%s", note)
        if not notes or isinstance(stop, BrokenPipeError):  # stdout was closed, as in `litlab fit ... | head`
            raise
        return int(stop.code or 0) if isinstance(stop, SystemExit) else 130
    except RunFailedError as error:
        return _report_failure(error)
    if result is None:
        if is_rank_zero():
            print("fast_dev_run: training, validation and test steps work; nothing was logged")
        return 0
    print_summary(result)
    return 1 if result.refused else 0  # data not yet sent to the store were reported when the run ended


def print_summary(result: "FitResult") -> None:
    """Print the metrics of the selected epoch and where the run is."""
    from pipelines.evaluation.evaluate import metrics_of
    from pipelines.runtime.console import format_duration, print_results
    from pipelines.tracking.uri import view_command

    facts = {
        "selected": f"epoch {result.selected_epoch} of 0 to {result.last_epoch}, by {result.monitor}",
        "training": format_duration(result.seconds),
        "parameters": f"{result.parameters:,}",
        "checkpoint": str(result.checkpoint),
        "run": result.run_id,
        "view": view_command(result.tracking_uri),
    }
    rows = {split: metrics_of(result.metrics, split) for split in ("train", "val", "test")}
    print_results(f"{result.experiment}, seed {result.seed}", rows, facts)


def _report_failure(error: "RunFailedError") -> int:
    if not error.explained:
        traceback.print_exception(error.__cause__)
    logger.error("%s", error)
    logger.error("Run %s failed. Metrics logged so far are kept.", error.run_id)
    if error.resume_command:
        logger.error("To continue: %s", error.resume_command)
    return 2 if error.refused else 1

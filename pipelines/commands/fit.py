"""`litlab fit`: train an experiment."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, get_args

from pipelines.commands.options import VerbParser, check_system_metrics, find_run_id, take_labels
from pipelines.config.arguments import Keep, option_values, starts_from_run
from pipelines.config.request import read_request
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.status import show_status

if TYPE_CHECKING:
    from pipelines.tracking.store import StoredRun
    from pipelines.training.failures import RunFailedError
    from pipelines.training.results import FitResult

OF_SEVERAL_RUNS = ("--cluster", "--cpus", "--gpus", "--stacked", "--workers")  # options of `litlab fit --seeds`
DESCRIPTION = """Train an experiment, select the best epoch on the validation set and test it
once. Configuration, metrics, figures, checkpoints and model are logged to one
MLflow run."""
KEYS = """keys of an experiment, such as:
  --data.batch_size 100       any key of the data
  --data.n_train 250          size of the training subset
  --model.dropout 0.3         any key of the model
  --model.optimizer.lr 0.01   any key of its optimizer (--model.optimizer SGD)
  --trainer.max_epochs 6      any argument of Lightning's Trainer"""


def make_parser(verb: str) -> VerbParser:
    """Return the help page: LightningCLI parses the arguments, and needs torch for it."""
    usage = f"NAME [--KEY VALUE ...]\n       litlab {verb} -c FILE [-c FILE ...] [--KEY VALUE ...]"

    parser = VerbParser(verb, DESCRIPTION, usage=usage, epilog=KEYS, needs_arguments=True)
    parser.show_argument("experiment", metavar="NAME", help="an experiment (litlab list) or a YAML file")
    parser.show_argument("-c", "--config", metavar="FILE", help="another YAML file; later files take precedence")
    parser.show_argument("--seed_everything", metavar="N", help="seed of weights, order, dropout, augmentation (0)")
    parser.show_argument("--seeds", metavar="N", help="N seeds, and their mean; --folds N: cross-validation")
    parser.show_argument("--tracking_uri", metavar="URI", help="sqlite:///FILE or http://SERVER (mlflow.db here)")
    parser.show_argument("--name", metavar="NAME", help="the MLflow experiment (the name of the experiment)")
    parser.show_argument("--monitor", metavar="METRIC", help="what selects the best weights (docs/LOOPS.md)")
    parser.show_argument("--mode", metavar="min|max", help="whether lower or higher values of it are better")
    parser.show_argument("--test_weights", metavar="WHICH", help="best, last, or callback (a ModelCheckpoint's best)")
    parser.show_argument("--checkpoint_every", metavar="N|TIME", help="also save within epochs: 500 (steps), 10m, 2h")
    kept = "checkpoints left at the end: all, best or none (all)"
    parser.show_argument("--keep", choices=get_args(Keep), metavar="WHICH", help=kept)
    parser.show_argument("--ckpt_path", metavar="FILE|RUN_ID", help="continue from a checkpoint or run, as a new run")
    parser.show_argument("--weights", metavar="FILE|RUN_ID", help="start from the weights of a checkpoint or run")
    parser.add_argument("--from", dest="from_run", metavar="RUN_ID", help="a run whose configuration the keys change")
    if_needed = "show an equal finished run instead, if there is one"
    parser.add_argument("--if_needed", action="store_true", help=if_needed)
    parser.show_argument("--leak_check", metavar="BOOL", help="refuse training examples in other sets (true)")
    parser.show_argument("--keep_predictions", metavar="BOOL", help="keep the predictions of the test (true)")
    parser.show_argument("--print_config", action="store_true", help="print the resolved configuration and exit")
    parser.show_argument("--full-help", action="store_true", help="print every argument of the Trainer")
    parser.add_system_metrics()
    parser.add_labels()
    parser.add_notify()
    parser.add_trust()
    parser.show_argument("--model.help", metavar="CLASS", help="print every argument of a model (modules.mlp.MLP)")
    parser.show_argument("--data.help", metavar="CLASS", help="... of a data module (datamodules.mnist.MNIST)")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Train an experiment, and print the results."""
    parser = make_parser(verb)
    options, names, overrides = parser.parse_with_overrides(argv)  # prints help
    check_system_metrics(options)
    argv, labels = [*names, *overrides], take_labels(options)
    if several := next((flag for flag in OF_SEVERAL_RUNS if any(arg.partition("=")[0] == flag for arg in argv)), None):
        raise UserError(f"{several} is for several trainings: it goes with --seeds N, --folds N or litlab sweep")
    if "--full-help" not in argv:
        request = read_request(
            verb,
            argv,
            on_run=bool(options.from_run) or starts_from_run(argv),
            options=[*parser.option_names, "--seeds", "--folds"],
        )
        if options.from_run is not None:
            uris = option_values(argv, "--tracking_uri")
            options.from_run = find_run_id(options.from_run, uris[-1] if uris else None)
        show_status(f"{request.name or 'litlab'}: loading torch and the data")
    from pipelines.tracking import source_code, writer_process

    writer_process.start(argv)  # before torch is imported
    source_code.start()
    try:
        from pipelines.comparison.equal_finished import find_equal
        from pipelines.config.cli import print_full_help
        from pipelines.training.fit import fit

        if "--full-help" in argv:
            print_full_help()
        experiment, overrides = (argv[0], argv[1:]) if names else (None, argv)
        given = {"labels": labels, "trust": options.trust, "notify": options.notify}
        given |= {"from_run": options.from_run, "find_equal": find_equal if options.if_needed else None}
        given["system_metrics"] = options.system_metrics
        return run_and_report(lambda: fit(experiment, overrides=overrides, **given))
    finally:
        writer_process.stop()
        source_code.stop()


def run_and_report(train: "Callable[[], FitResult | StoredRun | None]") -> int:
    """Train, print the results or why there are none, and return the exit code."""
    from pipelines.config.distributed import is_rank_zero
    from pipelines.tracking.store import StoredRun
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
    if isinstance(result, StoredRun):
        _print_equal(result)
        return 0
    print_summary(result)
    return 1 if result.refused else 0  # data not yet sent to the store were reported when the run ended


def _print_equal(run: "StoredRun") -> None:
    from pipelines.commands.show import print_run
    from pipelines.comparison.equal_finished import explain
    from pipelines.config.distributed import is_rank_zero

    if is_rank_zero():
        logger.info("not trained: run %s is equal (%s)", run.run_id, explain(run))
        print_run(run)


def print_summary(result: "FitResult") -> None:
    """Print the metrics of the selected epoch and where the run is."""
    from pipelines.runtime.console import format_duration, print_results
    from pipelines.tracking.uri import runs_page, view_command

    by = "" if result.monitor is None else f", by {result.monitor}"
    selected = f"epoch {result.selected_epoch} of 0 to {result.last_epoch}"
    if result.selected_step is not None:
        selected = f"step {result.selected_step} of {result.last_step}"
    facts = {
        "selected": f"{selected}{by}",
        "training": format_duration(result.seconds),
        "parameters": f"{result.parameters:,}",
        "checkpoint": str(result.checkpoint or "none is kept"),
        "run": result.run_id,
        "view": view_command(result.tracking_uri, runs_page(result.experiment_id)),
    }
    print_results(f"{result.experiment}, seed {result.seed}", _metric_rows(result.metrics), facts)


def _metric_rows(metrics: "Mapping[str, float]") -> "dict[str, dict[str, float]]":
    """Return the metrics of the selected epoch by split, and as "other" those whose names tell none."""
    from pipelines.runtime.metric_names import labels_of, of_split, split_of
    from pipelines.tracking.measured import is_measured, metrics_after_training

    measured = {name: value for name, value in metrics.items() if is_measured(name)}
    tested = metrics_after_training(metrics)
    before = {name: value for name, value in measured.items() if name not in tested}
    rows = {split: of_split(before, split) for split in ("train", "val")}
    others = labels_of([name for name in before if split_of(name) in (None, "test")])
    rows["test"] = of_split({name: measured[name] for name in tested}, "test", tested)
    rows["other"] = {label: before[name] for name, label in others.items()}
    return {split: values for split, values in rows.items() if values}


def _report_failure(error: "RunFailedError") -> int:
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from pipelines.runtime.user_traceback import user_traceback

    if error.explained:
        logger.error("%s", error)
    elif found := user_traceback(error):
        found.show()
    else:
        if not isinstance(
            error.__cause__, MisconfigurationException | ModuleNotFoundError
        ):  # Lightning's own say enough
            traceback.print_exception(error.__cause__)
        logger.error("%s", error)
    kept = " Metrics logged so far are kept." if error.has_metrics else ""
    logger.error("Run %s failed.%s", error.run_id, kept)
    if error.advice:
        logger.error("%s", error.advice)
    return 2 if error.refused else 1

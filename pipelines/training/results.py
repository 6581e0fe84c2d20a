"""Test the selected epoch, and save and print the results of a run."""

from datamodules.base import InMemoryDataModule
from pipelines.checkpoints.files import PREVIOUS, remove_checkpoint
from pipelines.evaluation import figures
from pipelines.evaluation.evaluate import Evaluation, evaluate, metrics_of
from pipelines.runtime.console import format_duration, print_results
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.run import Run
from pipelines.tracking.tags import FIT_SECONDS, PARAMETERS, SELECTED, SELECTED_EPOCH
from pipelines.training.export import exportable
from pipelines.training.job import Training


def finalize(job: Training, run: Run, seconds: float, *, test: bool) -> None:
    """Keep and tell what came out; with `test`, open the test set, once, with the selected weights.

    Without it there are no test metrics, no figures of the test set and no exported model.
    """
    epoch, best = job.keeper.best_epoch, job.keeper.best
    if epoch is None:
        raise RuntimeError(f"no epoch was selected: the validation metric {job.keeper.monitor} was never logged")
    selected = {f"{SELECTED}/{key}": value for key, value in run.metrics_at(epoch).items()}
    parameters = sum(parameter.numel() for parameter in job.model.parameters())
    facts = {FIT_SECONDS: seconds, PARAMETERS: parameters, SELECTED_EPOCH: epoch}
    last_epoch = max(at for at, _ in run.history)
    run.log_metrics({**selected, **facts}, epoch)
    run.save_figure("learning_curves", figures.learning_curves(run.history, epoch))
    if test:
        tested = evaluate("test", job.cli, job.model, job.data, best)
        run.log_metrics(tested.metrics, epoch)
        save_test_figures(job, run, tested, epoch)
        if isinstance(job.data, InMemoryDataModule):
            example = job.data.test_set.inputs[:2]
            known = {"classes": list(job.data.classes)} if job.data.classes else {}
            run.log_model(exportable(job.data.normalize, job.model), example, known, epoch)
    remove_checkpoint(best.with_name(PREVIOUS))  # nobody will go on from there
    print_summary(job, run, f"epoch {epoch} of 0 to {last_epoch}, by {job.keeper.monitor}", seconds, parameters, epoch)


def print_summary(job: Training, run: Run, selected: str, seconds: float, parameters: int, epoch: int) -> None:
    """The results on the screen."""
    uri = job.cli.config.tracking_uri
    facts = {
        "selected": selected,
        "training": format_duration(seconds),
        "parameters": f"{parameters:,}",
        "checkpoint": str(job.keeper.best),
        "run": run.run_id,
        "look": "litlab ui" + (f" --tracking_uri {redact_credentials(run.store.uri)}" if uri else ""),
    }
    rows = {split: metrics_of(run.metrics_at(epoch), split) for split in ("train", "val", "test")}
    print_results(f"{job.cli.config.name}, seed {job.cli.config.seed_everything}", rows, facts)


def save_test_figures(job: Training, run: Run, tested: Evaluation, epoch: int) -> None:
    """What the test set looks like to the model."""
    if not isinstance(job.data, InMemoryDataModule):
        return
    outputs = {name: part.float().numpy() for name, part in tested.outputs.items()}
    drawn = figures.output_figures(job.data.test_set.inputs.numpy(), outputs, job.data.classes)
    for kept in job.regions:
        drawn["decision_regions"] = figures.decision_regions(
            kept.grids(epoch), kept.plane.corners, job.data.test_set, job.data.classes
        )
    for name, figure in drawn.items():
        run.save_figure(name, figure)

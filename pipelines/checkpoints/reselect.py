"""Select among the checkpoints that exist by another metric than the one that the training selected by."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pipelines.checkpoints.files import ResumePoint, load_checkpoint
from pipelines.checkpoints.selection import Best, Monitor
from pipelines.checkpoints.ties import tie_score
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.metric_names import list_metrics


def select_again(
    paths: Iterable[Path], history: Iterable[tuple[int, Mapping[str, float]]], monitor: Monitor
) -> tuple[Best, Path]:
    """Return the best epoch by a metric that was logged, and its checkpoint.

    Args:
        paths: Checkpoint files; those that are missing are left out.
        history: Epochs with the metrics that were logged.
        monitor: The metric.

    Raises:
        UserError: The metric was not logged at the epoch of any of the checkpoints.
    """
    logged: dict[int, dict[str, float]] = {}
    for epoch, metrics in history:
        logged.setdefault(epoch, {}).update(metrics)
    found = []
    for path in filter(Path.is_file, paths):
        point = ResumePoint.of(path, load_checkpoint(path, needed=("litlab", "epoch", "global_step")))
        value = logged.get(point.epoch, {}).get(monitor.metric)
        if value is not None and point.step is None:
            tie = tie_score(logged[point.epoch], monitor.metric)
            found.append((Best(point.epoch, monitor.score(value), tie=tie), path))
    if not found:
        names = list_metrics({name for metrics in logged.values() for name in metrics}, monitor.metric)
        raise UserError(f"--monitor {monitor.metric}: no checkpoint has a value of it; there is {names}")
    best, path = max(found, key=lambda item: (item[0].score, item[0].tie or 0.0, -item[0].epoch))
    count = len({item.epoch for item, _ in found})
    logger.info(
        "Of %d epochs with a checkpoint, %d is the best by %s: %s", count, best.epoch, monitor.metric, path.name
    )
    return best, path

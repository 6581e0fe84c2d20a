"""The metrics of a run over its epochs and steps."""

from pipelines.runtime.errors import UserError
from pipelines.tracking.measured import is_measured, test_metrics
from pipelines.tracking.run_log import read_entries
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import LEARNING_RATE

Rows = dict[int, dict[str, float]]


def metrics_of_epochs(run: StoredRun) -> Rows:
    """Return what was logged for each epoch: metrics, without those of the test, and learning rates."""
    tested = test_metrics(run.metrics, run.tags)
    logged = [(epoch, name, value) for epoch, step, name, value in _points(run) if step is None or _is_rate(name)]
    return _rows([point for point in logged if point[1] not in tested])


def metrics_of_steps(run: StoredRun) -> Rows:
    """Return what was logged at each step, with its epoch as "epoch"."""
    logged = [(epoch, step, name, value) for epoch, step, name, value in _points(run) if not _is_rate(name)]
    points = [(step, "epoch", float(epoch)) for epoch, step, _, _ in logged if step is not None]
    return _rows([*points, *((step, name, value) for _, step, name, value in logged if step is not None)])


def _points(run: StoredRun) -> list[tuple[int, int | None, str, float]]:
    """Return epoch, step, name and value of each logged number; of a run of another program, MLflow's steps as epochs.

    The step is None if the epoch is the x axis.
    """
    try:
        entries = read_entries(run.file("metrics.jsonl"))[0]
    except UserError:
        names = [name for name in run.metrics if is_measured(name)]
        histories = {name: run.store.client.get_metric_history(run.run_id, name) for name in names}
        return [(int(point.step), None, name, point.value) for name in names for point in histories[name]]
    logged = [(entry, name, value) for entry in entries for name, value in entry.values.items()]
    return [(one.epoch, one.step, name, value) for one, name, value in logged if is_measured(name) or _is_rate(name)]


def _rows(points: list[tuple[int, str, float]]) -> Rows:
    rows: Rows = {}
    for index, name, value in points:
        rows.setdefault(index, {})[name] = value
    return dict(sorted(rows.items()))


def _is_rate(name: str) -> bool:
    return name.startswith(LEARNING_RATE)

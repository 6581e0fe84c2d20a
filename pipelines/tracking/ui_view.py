"""The view of an experiment's runs with which the MLflow UI opens: columns, order and charts. Imports nothing heavy.

MLflow stores views that are shared as tags of the experiment; the page opens one that its address names. litlab writes
only the view named "litlab", and does not change views that users save.
"""

import base64
import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.metric_names import mode_of, split_of, without_split
from pipelines.tracking.client import attempt
from pipelines.tracking.filters import FINISHED
from pipelines.tracking.measured import is_measured, selected_metric, test_metrics
from pipelines.tracking.passive import without_passive
from pipelines.tracking.run_names import NEWEST_FIRST, experiment_ids, latest_run
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import MODE_TAG, PARENT_TAG, STAGE_TAG, is_summary
from pipelines.tracking.uri import runs_page, view_command

KEY = "litlab"
PAGE, VIEW_VARIABLE = "/litlab", "LITLAB_UI_VIEW"  # of ui_app.py
VIEW_TAG = f"mlflow.sharedViewState.{KEY}"
MAX_TAG = 20_000  # characters of an experiment's tag
MAX_RUNS = 200  # of which the columns are chosen
MAX_COLUMNS, MAX_CURVES, MAX_SCATTERS = 8, 4, 4
RUN_NAME = "attributes.`Run Name`"


@dataclass(frozen=True)
class View:
    """A view of an experiment's runs.

    Attributes:
        path: What follows the address of the server, such as "/#/experiments/1/runs?..."; the page of all experiments
            if there are no runs. If the store cannot be written, the page has MLflow's own columns.
        experiment_id: The experiment; "" if there are no runs.
        state: What MLflow's page keeps: columns, order and charts.
    """

    path: str
    experiment_id: str = ""
    state: dict[str, Any] = field(default_factory=dict)


def save_view(store: Store, name: str | None = None) -> View:
    """Save the view of an experiment or a study as a tag of the experiment.

    Args:
        store: The tracking store.
        name: Name of the experiment or the study; by default the experiment of the latest run.

    Raises:
        UserError: There is no such experiment.
    """
    if name is None:
        if (latest := latest_run(store)) is None:
            return View("/#/experiments")
        name = latest.experiment
    (experiment_id,) = experiment_ids(store, [name])
    runs = store.search([experiment_id], FINISHED, NEWEST_FIRST, limit=MAX_RUNS)
    state = make_view([run for run in runs if not is_summary(run.tags)])
    packed = "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    value = json.dumps({"name": "litlab", "createdAt": int(time.time() * 1000), "state": packed})
    page = runs_page(experiment_id)
    if len(value) <= MAX_TAG and attempt(lambda: store.client.set_experiment_tag(experiment_id, VIEW_TAG, value)):
        page += f"&viewStateShareKey={KEY}"
    return View(page, experiment_id, state)


def command_or_address(uri: str, name: str) -> str:
    """Return the command that shows runs in the MLflow UI; of a server, the address of a view that this saves.

    Args:
        uri: The tracking URI.
        name: Name of an experiment or a study.
    """
    try:
        return view_command(uri, save_view(Store(uri), name).path if uri.startswith("http") else "")
    except UserError:  # the server is away
        return view_command(uri)


def make_view(runs: Sequence[StoredRun]) -> dict[str, Any]:
    """Return the state of MLflow's page that shows these runs best.

    Columns are the metric of selection, the same metric of the test, and the params that differ. Charts are training
    and validation curves, the test metric, and the metric of selection over each numeric param that differs; several
    such params, as a search has them, are drawn as parallel coordinates. Runs of several seeds are grouped.
    """
    params = varying_params(runs)
    selected = next((key for run in runs if (key := selected_metric(run.metrics, run.tags))), None)
    tested = _test_metric(runs, selected)
    metrics = [key for key in (selected, tested) if key]
    columns = [*(f"metrics.`{key}`" for key in metrics), *(f"params.`{key}`" for key in params[:MAX_COLUMNS])]
    modes = [run.tags[MODE_TAG] for run in runs if MODE_TAG in run.tags]
    charts = _charts(runs, params, selected, tested)
    section = {"uuid": KEY, "name": KEY, "display": True, "isReordered": True, "columns": 2, "cardHeight": 360}
    return {
        "selectedColumns": columns,
        "columnOrder": [RUN_NAME, *columns, "runDateAndNestInfo", "duration"],
        "columnWidths": {RUN_NAME: 300, **dict.fromkeys(columns, 130)},
        **({"orderByKey": f"metrics.`{selected}`"} if selected else {}),
        "orderByAsc": bool(selected) and (modes or [mode_of(selected or "")])[0] == "min",
        "searchFilter": f"tags.`{PARENT_TAG}` IS NULL",
        "groupBy": _groups(runs, params),
        "runsHiddenMode": "FIRST_20_RUNS",
        "isAccordionReordered": True,
        "compareRunSections": [section],
        "compareRunCharts": [
            {"uuid": f"{KEY}-{index}", "metricSectionId": KEY, "runsCountToCompare": 20, **chart}
            for index, chart in enumerate(charts)
        ],
    }


def varying_params(runs: Sequence[StoredRun]) -> list[str]:
    """Return the params in which runs differ, without the seed: those that most values distinguish first."""
    values: dict[str, set[str]] = {}
    compared = [without_passive(run.params) for run in runs]
    for key in {key for params in compared for key in params}:
        values[key] = {params.get(key, "") for params in compared}
    differing = {key: found for key, found in values.items() if len(found) > 1 and max(map(len, found)) < 50}
    return sorted(differing, key=lambda key: (-len(differing[key]), key))


def _test_metric(runs: Sequence[StoredRun], selected: str | None) -> str | None:
    tested = [metric for run in runs for metric in test_metrics(run.metrics, run.tags)]
    wanted = without_split((selected or "").partition("/")[2])
    return next((metric for metric in tested if without_split(metric) == wanted), next(iter(tested), None))


def _groups(runs: Sequence[StoredRun], params: Sequence[str]) -> dict[str, Any] | None:
    """Group runs that differ in nothing but their seed, if there are any: mean curves with a band."""
    configurations = {tuple(run.params.get(key, "") for key in params) for run in runs}
    seeds = {run.seed for run in runs}
    searched = any(STAGE_TAG in run.tags for run in runs)  # most trials of a search have one run
    if searched or not params or len(seeds) < 2 or len(configurations) == len(runs):
        return None
    keys = [{"mode": "param", "groupByData": key} for key in params[:MAX_COLUMNS]]
    return {"aggregateFunction": "average", "groupByKeys": keys}


def _charts(
    runs: Sequence[StoredRun], params: Sequence[str], selected: str | None, tested: str | None
) -> list[dict[str, Any]]:
    numeric = [key for key in params if all(_is_number(run.params.get(key, "0")) for run in runs)]
    charts: list[dict[str, Any]] = [_line(keys) for keys in _curves(runs)]
    if tested:
        charts.append({"type": "BAR", "metricKey": tested})
    goal = selected or tested
    if goal and len(numeric) > 1:
        chosen = numeric[:MAX_COLUMNS]
        charts.append({"type": "PARALLEL", "selectedParams": chosen, "selectedMetrics": [goal], "showAllRuns": False})
    if goal:
        for key in numeric[:MAX_SCATTERS]:
            axes = {"xaxis": {"key": key, "type": "PARAM"}, "yaxis": {"key": goal, "type": "METRIC"}}
            charts.append({"type": "SCATTER", **axes})
    return charts


def _curves(runs: Sequence[StoredRun]) -> list[list[str]]:
    """Return the metrics that are drawn together: of training and validation, loss first."""
    names = sorted({key for run in runs for key in run.metrics if is_measured(key)})
    curves: dict[str, list[str]] = {}
    for split in ("train", "val"):
        for name in names:
            if split_of(name) == split:
                curves.setdefault(without_split(name), []).append(name)
    order = sorted(curves, key=lambda kind: ("loss" not in kind, kind))
    return [curves[kind] for kind in order][:MAX_CURVES]


def _line(keys: Sequence[str]) -> dict[str, Any]:
    axes = {"xAxisKey": "step", "selectedXAxisMetricKey": "", "scaleType": "linear", "xAxisScaleType": "linear"}
    more = {"lineSmoothness": 0, "range": {}, "yAxisKey": "metric", "yAxisExpressions": []}
    return {"type": "LINE", "metricKey": keys[0], "selectedMetricKeys": list(keys), **axes, **more}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

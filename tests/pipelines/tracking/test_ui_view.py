"""The view with which the MLflow UI opens: what its tag contains, and what a browser shows."""

import base64
import json
import shutil
import subprocess
import zlib

import pytest
from mlflow.entities import Metric, Param

from pipelines.runtime.errors import UserError
from pipelines.tracking.store import Store
from pipelines.tracking.tags import PARENT_TAG
from pipelines.tracking.ui import serve_ui
from pipelines.tracking.ui_view import MAX_TAG, VIEW_TAG, save_view

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def store(tables, uri):
    return Store(uri)


def write(store, experiment="digits", params=(), metrics=(), tags=()):
    client = store.client
    run_id = client.create_run(store.experiment_id(experiment), tags=dict(tags), run_name="a run").info.run_id
    points = [Metric(key, value, 1_700_000_000_000, 0) for key, value in dict(metrics).items()]
    client.log_batch(run_id, points, [Param(key, str(value)) for key, value in dict(params).items()])
    client.set_terminated(run_id)
    return run_id


def measured(accuracy):
    curves = {"train/loss": 1.0, "val/loss": 1.1, "train/acc": accuracy, "val/acc": accuracy}
    return {**curves, "selected/val/acc": accuracy, "test/acc": accuracy, "fit_seconds": 2.0, "selected_epoch": 3}


def view_of(store, name="digits"):
    experiment = store.client.get_experiment_by_name(name)
    shared = json.loads(experiment.tags[VIEW_TAG])
    return json.loads(zlib.decompress(base64.b64decode(shared["state"].removeprefix("deflate;"))))


def test_columns_are_the_metrics_and_the_params_that_differ_and_rows_are_sorted_by_the_metric_of_selection(store):
    for index, dropout in enumerate((0.1, 0.2, 0.2)):
        params = {"model.dropout": dropout, "data.batch_size": 32, "seed_everything": index}
        write(store, params=params, metrics=measured(0.9), tags={"seed": index})
    page = save_view(store, "digits").path
    view = view_of(store)
    assert page == "/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=litlab"
    columns = ["metrics.`selected/val/acc`", "metrics.`test/acc`", "params.`model.dropout`"]
    assert view["selectedColumns"] == columns
    assert (view["orderByKey"], view["orderByAsc"]) == (columns[0], False)
    assert view["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "model.dropout"}]


def test_charts_are_the_curves_of_training_and_validation_and_no_constants(store):
    write(store, params={"lr": 0.1}, metrics=measured(0.9))
    write(store, params={"lr": 0.2}, metrics=measured(0.8))
    save_view(store, "digits")
    charts = view_of(store)["compareRunCharts"]
    lines = [chart["selectedMetricKeys"] for chart in charts if chart["type"] == "LINE"]
    assert lines == [["train/loss", "val/loss"], ["train/acc", "val/acc"]]
    assert [chart["type"] for chart in charts[2:]] == ["BAR", "SCATTER"]
    assert not any("fit_seconds" in json.dumps(chart) or "selected_epoch" in json.dumps(chart) for chart in charts)


def test_a_search_has_parallel_coordinates_and_a_scatter_of_each_key(store):
    for index in range(3):
        params = {"lr": 0.1 + index, "dropout": index / 10, "model.activation": "relu"}
        write(store, "s-sweep", params, measured(0.5 + index / 10), {"stage": "search", "seed": 0})
    write(store, "s-sweep", {"metric": "val/acc"}, {"trials/complete": 3}, {PARENT_TAG: "sweep"})
    save_view(store, "s")
    view = view_of(store, "s-sweep")
    assert view["groupBy"] is None
    assert [chart["selectedParams"] for chart in view["compareRunCharts"] if chart["type"] == "PARALLEL"] == [
        ["dropout", "lr"]
    ]
    assert [chart["xaxis"]["key"] for chart in view["compareRunCharts"] if chart["type"] == "SCATTER"] == [
        "dropout",
        "lr",
    ]


def test_lower_values_come_first_where_lower_is_better_and_without_runs_there_is_a_page_too(store):
    tags = {"litlab.monitor": "val_depth", "litlab.mode": "min"}
    write(store, metrics={"selected/val_depth": 1.0}, tags=tags)
    save_view(store)
    assert view_of(store)["orderByAsc"] is True
    store.experiment_id("empty")
    assert "/#/experiments/2/runs" in save_view(store, "empty").path
    with pytest.raises(UserError, match="'nosuch' is not an experiment"):
        save_view(store, "nosuch")


def test_views_that_people_saved_stay_and_the_tag_keeps_mlflows_limit(store):
    for index in range(40):
        params = {f"model.a_long_name_of_a_key_{key}": index * key for key in range(60)}
        write(store, params=params, metrics=measured(0.9))
    experiment = store.experiment_id("digits")
    store.client.set_experiment_tag(experiment, "mlflow.sharedViewState.mine", "{}")
    save_view(store, "digits")
    tags = store.client.get_experiment(experiment).tags
    assert tags["mlflow.sharedViewState.mine"] == "{}"
    assert len(tags[VIEW_TAG]) <= MAX_TAG


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_a_browser_shows_the_columns_of_the_view_also_on_later_visits(store, tmp_path, free_port):
    for index in range(2):
        write(store, params={"lr": index + 0.5}, metrics=measured(0.5 + index / 10))
    page = save_view(store, "digits").path
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1600,900", "--virtual-time-budget=20000"]
    with serve_ui(port=free_port(), tracking_uri=store.uri) as server:
        wait_for(server.url)
        for address in (page, "/litlab", "/#/experiments/1/runs?workflowType=machine_learning"):
            command = [CHROMIUM, *options, "--dump-dom", f"{server.url}{address}"]
            shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
            for expected in ('data-testid="sort-header-test/acc"', "Sort: selected/val/acc", "lr", "a run"):
                assert expected in shown


def wait_for(url):
    import time
    import urllib.request

    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)

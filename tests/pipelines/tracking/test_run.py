"""Tracking URIs, and runs that are written and read back."""

import json
import random
import subprocess
import time
from contextlib import nullcontext

import pytest
from mlflow import MlflowClient

from pipelines.runtime.errors import UserError
from pipelines.tracking.endings import recorded
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store
from pipelines.tracking.uri import store_uri


def new_run(store, **params):
    run = Run(store, "an experiment", "a run", {"seed": "0"})
    run.log_params(params)
    return run


def test_the_default_is_the_projects_database_in_any_of_its_folders(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "notebooks").mkdir()
    for folder in (tmp_path, tmp_path / "notebooks"):
        monkeypatch.chdir(folder)
        assert store_uri() == f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_the_argument_overrides_the_environment_and_relative_paths_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert store_uri("sqlite:///mine.db") == f"sqlite:///{tmp_path / 'mine.db'}"
    assert store_uri("http://127.0.0.1:5000") == "http://127.0.0.1:5000"


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "mlflow.db"])
def test_a_folder_is_refused_as_a_store(uri):
    with pytest.raises(UserError, match="expected sqlite:///FILE"):
        store_uri(uri)


def test_four_processes_can_create_the_first_run_at_once(uri, start_python):
    program = (
        "from pipelines.tracking.store import Store\nfrom pipelines.tracking.run import Run\n"
        "from pipelines.tracking.endings import recorded\n"
        "with recorded(Run(Store(), 'an experiment', 'a run', {})) as run:\n"
        "    run.log_metrics({'val/acc': 0.5}, 0)\n"
    )
    processes = [start_python(program, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("an experiment").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 4


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "FINISHED"),
        (RuntimeError("no luck"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(143), "KILLED"),
    ],
    ids=["done", "error", "Ctrl-C", "SIGTERM"],
)
def test_the_status_of_a_run_follows_the_exception_that_ended_it(uri, error, status):
    run = new_run(Store())
    expectation = nullcontext() if error is None else pytest.raises(type(error))
    with expectation, recorded(run):
        run.log_metrics({"val/acc": 0.5}, 0)
        if error is not None:
            raise error
    stored = MlflowClient(uri).get_run(run.run_id)
    assert stored.info.status == status
    assert stored.data.metrics["val/acc"] == 0.5
    assert ("litlab.reason" in stored.data.tags) == (error is not None)


def test_metrics_are_sent_in_batches_and_arrive_completely(uri):
    run = new_run(Store())
    for epoch in range(600):
        run.log_metrics({"train/loss": epoch / 7, "val/loss": epoch / 3}, epoch)
    sent_early = 0
    while not sent_early:  # by the background thread
        sent_early = len(MlflowClient(uri).get_metric_history(run.run_id, "train/loss"))
    run.finish("FINISHED")
    history = MlflowClient(uri).get_metric_history(run.run_id, "train/loss")
    assert 0 < sent_early < 600, "batches of 1000 values, not one call each, nor all at the end"
    assert [(point.step, point.value) for point in history] == [(epoch, epoch / 7) for epoch in range(600)]


def test_values_of_steps_have_the_step_as_x_axis_and_are_no_values_of_an_epoch(uri):
    run = new_run(Store())
    run.log_metrics({"loss": 1.0, "lr": 0.1}, 0, 7)
    run.log_metrics({"val/loss": 2.0}, 0)
    run.log_metrics({"loss": 0.5}, 1, 9)
    assert run.history == [(0, {"val/loss": 2.0})]
    assert run.metrics_at(0) == {"val/loss": 2.0}
    assert run.metrics_at(0, 7) == {"val/loss": 2.0, "loss": 1.0, "lr": 0.1}
    run.rewind(run.mark())
    assert run.history == [(0, {"val/loss": 2.0})]
    run.log_metrics({"loss": float("nan")}, 1, 11)
    run.finish("FINISHED")
    history = MlflowClient(uri).get_metric_history(run.run_id, "loss")
    assert [point.step for point in history] == [7, 9, 11], "each once, although the log was compared with the store"


@pytest.mark.parametrize("name", ["epoch", "timestamp", "step", "values"])
def test_a_metric_may_have_the_name_of_a_field_of_the_log(uri, name):
    run = new_run(Store())
    run.log_metrics({name: 0.5, "other": 1.0}, 3)
    run.log_metrics({name: 0.25}, 3, 40)
    run.rewind(run.mark())
    assert run.history == [(3, {name: 0.5, "other": 1.0})]
    run.finish("FINISHED")
    history = MlflowClient(uri).get_metric_history(run.run_id, name)
    assert [(point.step, point.value) for point in history] == [(3, 0.5), (40, 0.25)]


def test_lines_of_earlier_versions_are_read(uri):
    run = new_run(Store())
    line = {"epoch": 2, "timestamp": 1, "val/loss": None, "val/acc": 0.5, "step": 3.0}
    (run.folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    run.rewind(1000)
    ((epoch, values),) = run.history
    assert (epoch, values.keys(), values["step"]) == (2, {"val/loss", "val/acc", "step"}, 3.0)
    run.finish("FINISHED")


def test_infinite_values_are_stored_as_nan(uri):
    run = new_run(Store())
    run.log_metrics({"val/loss": float("inf")}, 0)
    run.finish("FINISHED")
    (point,) = MlflowClient(uri).get_metric_history(run.run_id, "val/loss")
    assert point.value != point.value, "MLflow would store infinity as 1.8e308"


def test_long_params_and_more_than_a_hundred_params_are_stored(uri):
    params = {f"model.p{index}": index for index in range(150)} | {"model.hidden": list(range(1000))}
    run = new_run(Store(), **params)
    run.finish("FINISHED")
    stored = MlflowClient(uri).get_run(run.run_id).data.params
    assert len(stored) == 151
    assert json.loads(stored["model.hidden"]) == list(range(1000))


def test_artifacts_are_stored_next_to_the_database(uri, tmp_path):
    run = new_run(Store())
    run.save_config({"name": "an experiment"})
    run.finish("FINISHED")
    assert run.folder == tmp_path / "runs/mlartifacts/an experiment" / run.run_id / "artifacts"
    assert [file.path for file in MlflowClient(uri).list_artifacts(run.run_id)] == ["code", "config.yaml"]


def test_a_deleted_experiment_is_restored_by_a_new_run(uri):
    client = MlflowClient(uri)
    new_run(Store()).finish("FINISHED")
    client.delete_experiment(client.get_experiment_by_name("an experiment").experiment_id)
    run = new_run(Store())
    run.finish("FINISHED")
    assert client.get_run(run.run_id).info.status == "FINISHED"


def test_waiting_for_a_server_does_not_change_the_random_state():
    """Checkpoints hold the state of Python's generator, which a data set may use."""
    before = random.getstate()
    with pytest.raises(UserError, match="cannot be reached"):
        Store("http://127.0.0.1:9")
    assert random.getstate() == before


def test_an_unreachable_server_is_reported_within_a_minute(litlab, free_port):
    began = time.monotonic()
    outcome = litlab("fit", "digits-mlp", "--tracking_uri", f"http://127.0.0.1:{free_port()}")
    assert outcome.code == 2
    assert "cannot be reached" in outcome.err
    assert time.monotonic() - began < 60, "MLflow by itself waits for four minutes"

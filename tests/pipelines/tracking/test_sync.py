"""A store that is slow, unavailable or loses responses: nothing waits for it, nothing is lost or stored twice."""

import contextlib
import os
import re
import socket
import sqlite3
import sys
import threading
import time
from collections import Counter

import pytest
from mlflow import MlflowClient

from pipelines.tracking import run_log, writer, writer_process
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store
from pipelines.tracking.tags import PROCESS_TAG
from pipelines.tracking.ui_view import command_or_address

EPOCHS = 3
CALLBACK = """
from lightning.pytorch import Callback

class AtEpoch(Callback):
    do = None

    def on_train_epoch_start(self, trainer, pl_module):
        self.do(trainer.current_epoch)
"""


class Line:
    """A proxy between litlab and a server that can fail.

    Attributes:
        state: "up", "down", or "hangs": it accepts requests and never responds.
        lost: Number of responses that will be lost, by a pattern of the path; the server has carried out the request.
        left: Number of requests until it goes down; None for never.
    """

    def __init__(self, port):
        self.port, self.state, self.lost, self.left = port, "up", Counter(), None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def close(self):
        _shut(self._listener)
        self._listening.join()  # else it might listen on the next socket with the same descriptor, that of another test
        self._listener.close()

    def _listen(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        """Forward requests one after another: each comes after the response to the one before."""
        try:
            server = socket.create_connection(("127.0.0.1", self.port))
        except OSError:  # the server itself is down
            client.close()
            return
        with client, server:
            path = [""]
            answers = threading.Thread(target=self._answer, args=(client, server, path), daemon=True)
            answers.start()
            while data := _received(client):
                if request := re.match(rb"(?:GET|POST|PUT|PATCH|DELETE) (\S+) HTTP", data):
                    path[0] = request[1].decode()
                    if self.left is not None:
                        self.left -= 1
                        self.state = "down" if self.left < 0 else self.state
                if self.state == "down":
                    break
                if self.state == "up":
                    server.sendall(data)
            _shut(server)
            _shut(client)
            answers.join()

    def _answer(self, client, server, path):
        while data := _received(server):
            lost = next((part for part in self.lost if re.search(part, path[0]) and self.lost[part] > 0), None)
            if lost is not None:
                self.lost[lost] -= 1
                break
            try:
                client.sendall(data)
            except OSError:
                break
        _shut(client)
        _shut(server)


def _received(end):
    try:
        return end.recv(1 << 16)
    except OSError:
        return b""


def _shut(end):
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def server(mlflow_server, tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def line(server, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.setattr(writer, "FIRST_PAUSE_S", 0.1)
    line = Line(server.port)
    yield line
    line.close()


@pytest.fixture
def fit(litlab, line, tmp_path, monkeypatch):
    """Return a function for `litlab fit` through the proxy; it calls `do` with the index of each epoch at its start."""

    def run(do):
        (tmp_path / "calling.py").write_text(CALLBACK)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "calling", raising=False)
        import calling

        calling.AtEpoch.do = staticmethod(do)
        more = ["--trainer.max_epochs", str(EPOCHS), "--trainer.callbacks+=calling.AtEpoch", "--name", tmp_path.name]
        return litlab("fit", "digits-mlp", *more, "--tracking_uri", line.uri)

    return run


def points(client, run_id):
    run = client.get_run(run_id)
    return {key: [point.step for point in client.get_metric_history(run_id, key)] for key in run.data.metrics}


def assert_all_is_there_once(server, outcome, name):
    """Assert that the server has all data of a fit, each exactly once; return the run."""
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name(name).experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.run_id == outcome.run_id
    assert run.info.status == "FINISHED"
    measured = points(client, run.info.run_id)
    curves = {key for key in measured if key.startswith(("train/", "val/"))}
    assert {"train/loss", "train/acc", "val/loss", "val/acc"} <= curves
    assert all(measured[key] == list(range(EPOCHS)) for key in curves), measured
    assert all(len(measured[key]) == 1 for key in measured.keys() - curves), measured
    assert {"test/acc", "selected/val/acc", "fit_seconds"} <= measured.keys()
    assert run.data.params["trainer.max_epochs"] == str(EPOCHS)
    assert len(run.data.tags["data.sha256.train"]) == 64
    assert len(run.inputs.dataset_inputs) == 1
    (output,) = run.outputs.model_outputs
    (model,) = client.search_logged_models([experiment])
    assert (model.model_id, str(model.status)) == (output.model_id, "READY")
    assert {"MLmodel", "data"} <= {file.path for file in client.list_logged_model_artifacts(model.model_id)}
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "metrics.jsonl", "checkpoints", "figures", "data.json"} <= files
    return run


def test_a_fit_finishes_without_its_server_and_sync_sends_everything(litlab, server, line, fit, tmp_path):
    outcome = fit(lambda epoch: setattr(line, "state", "down"))
    assert outcome.code == 0, outcome.err
    assert f"run {outcome.run_id} is FINISHED, but {line.uri} does not have all of its data" in outcome.err
    assert f"To send it: litlab sync {outcome.run_id}" in outcome.err
    assert outcome.err.count("cannot send to") == 1
    assert MlflowClient(server.uri).get_run(outcome.run_id).info.status == "RUNNING"
    ended = time.time() * 1000
    Store(server.uri).end(outcome.run_id, "KILLED", "its process died")  # as a sweep does that resumes before the sync
    for requests in (0, 6, 14, 25):  # the server goes down again in the middle of it
        line.state, line.left = "up", requests
        interrupted = litlab("sync")
        assert interrupted.code == 1
        assert "nothing is lost" in interrupted.err
    line.state, line.left = "up", None
    refused = litlab("resume", outcome.run_id, "--tracking_uri", line.uri)  # in the store it is KILLED
    assert refused.code == 2
    assert f"To send it: litlab sync {outcome.run_id}" in refused.err
    sent = litlab("sync")
    assert sent.code == 0, sent.err
    assert f"sent to {line.uri}" in sent.out
    run = assert_all_is_there_once(server, outcome, tmp_path.name)
    assert "litlab.reason" not in run.data.tags
    assert run.info.end_time <= ended, "the time when it ended, not when it was sent"
    assert not list((tmp_path / "unsent").iterdir())
    assert "nothing to send" in litlab("sync").out


@pytest.mark.slow
def test_lost_responses_store_nothing_twice(litlab, server, line, fit, tmp_path):
    """The server has carried out the request; neither litlab nor MLflow's client, which repeats it, can know."""
    line.lost.update({"runs/create": 1, "log-batch": 7, "log-inputs": 2, "logged-models$": 1, "outputs": 2})
    line.lost.update({"runs/update": 2, "mlflow-artifacts": 3})
    outcome = fit(lambda epoch: time.sleep(0.5))
    assert outcome.code == 0, outcome.err
    for _ in range(20):
        if not litlab("sync").code:
            break
    assert not +line.lost, "not all planned responses were lost"
    assert_all_is_there_once(server, outcome, tmp_path.name)


@pytest.mark.slow
def test_a_server_that_hangs_delays_neither_training_nor_for_long_the_end_of_a_run(litlab, server, line, capfd):
    run = Run(Store(line.uri), "an experiment", "a run", {})
    run.log_params({"model.lr": 0.1})
    line.state = "hangs"
    began = time.monotonic()
    for epoch in range(2000):
        run.log_metrics({"train/loss": epoch / 7}, epoch)
    assert time.monotonic() - began < 2, "less than the 3 s that one request waits for its response"
    run.finish("FINISHED")
    assert time.monotonic() - began < 30
    assert "cannot send to" in capfd.readouterr().err
    line.state = "up"
    assert litlab("sync", run.run_id).code == 0
    stored = MlflowClient(server.uri).get_run(run.run_id)
    assert (stored.info.status, stored.data.params) == ("FINISHED", {"model.lr": "0.1"})
    assert points(MlflowClient(server.uri), run.run_id) == {"train/loss": list(range(2000))}


def test_a_metric_that_the_server_refuses_does_not_block_the_others(server, line, capfd):
    run = Run(Store(line.uri), "an experiment", "a run", {})
    run.log_metrics({"good": 1.0, "x" * 300: 2.0}, 0)
    run.finish("FINISHED")
    assert "refuses metric xxx" in capfd.readouterr().err
    stored = MlflowClient(server.uri).get_run(run.run_id)
    assert (stored.info.status, stored.data.metrics) == ("FINISHED", {"good": 1.0})


def test_the_metrics_of_a_run_are_known_after_everything_was_sent_to_a_server(server, line):
    run = Run(Store(line.uri), "an experiment", "a run", {})
    run.log_metrics({"val/acc": 0.5, "val/loss": float("inf")}, 3)
    run.finish("FINISHED")
    assert run.complete
    assert not run.folder.exists()
    assert run.metrics_at(3)["val/acc"] == 0.5
    assert run.history[0][1]["val/loss"] != run.history[0][1]["val/loss"], "NaN, as in the store"


@pytest.mark.parametrize("released", [True, False], ids=["for a while", "until after the end"])
def test_a_locked_database_is_waited_for_and_then_left_to_sync(litlab, uri, monkeypatch, capfd, released):
    monkeypatch.setattr(writer_process, "SILENCE_S", 60 if released else 1)
    run = Run(Store(), "an experiment", "a run", {})
    other = sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(2, other.rollback)
    if released:
        release.start()
    run.log_params({"model.lr": 0.1})
    run.log_metrics({"val/acc": 0.5}, 0)
    run.finish("FINISHED")
    err = capfd.readouterr().err
    assert run.complete == released
    assert "Traceback" not in err
    if not released:
        assert "does not have all of its data" in err
        assert f"litlab sync {run.run_id}" in err
        other.rollback()
        assert litlab("sync").code == 0
    release.cancel()
    other.close()
    stored = MlflowClient(uri).get_run(run.run_id)
    assert (stored.info.status, stored.data.metrics, stored.data.params) == (
        "FINISHED",
        {"val/acc": 0.5},
        {"model.lr": "0.1"},
    )


def test_sync_leaves_active_runs_alone_and_ends_those_whose_process_died(litlab, uri):
    run = Run(Store(), "an experiment", "a run", {})
    run.log_metrics({"val/acc": 0.5}, 0)  # not sent yet
    outcome = litlab("sync")
    assert outcome.code == 0
    assert "still running: left alone" in outcome.out
    log = run_log.unsent_logs()[0]
    log.process[PROCESS_TAG] = f"{os.getpid()}:another-start"
    log.save()
    assert litlab("sync", run.run_id).code == 0
    stored = MlflowClient(uri).get_run(run.run_id)
    assert (stored.info.status, stored.data.metrics) == ("KILLED", {"val/acc": 0.5})
    assert stored.data.tags["litlab.reason"] == "its process died"


def test_sync_sends_the_files_of_a_run_that_another_process_has_ended_before_deleting_them(litlab, server, line):
    run = Run(Store(line.uri), "an experiment", "a run", {})
    run.save_config({"name": "an experiment"})
    Store(server.uri).end(run.run_id, "KILLED", "stopped")
    log = run_log.unsent_logs()[0]
    log.process[PROCESS_TAG] = f"{os.getpid()}:another-start"
    log.save()
    assert litlab("sync").code == 0
    client = MlflowClient(server.uri)
    assert [file.path for file in client.list_artifacts(run.run_id)] == ["code", "config.yaml"]
    stored = client.get_run(run.run_id)
    assert (stored.info.status, stored.data.tags["litlab.reason"]) == ("KILLED", "stopped")
    assert not log.home.exists()


def test_data_that_cannot_be_sent_are_kept_with_a_reason(litlab, uri, server):
    run = Run(Store(), "an experiment", "a run", {})
    MlflowClient(uri).log_param(run.run_id, "key", "a value")
    run.log_params({"key": "another"})
    run.finish("FINISHED")
    outcome = litlab("sync")
    assert outcome.code == 1
    assert "refused" in outcome.out
    elsewhere = litlab("sync", run.run_id, "--tracking_uri", server.uri)
    assert elsewhere.code == 1
    assert f"there is no run '{run.run_id}'" in elsewhere.out
    assert litlab("sync", "0" * 32).code == 2
    assert [log.run_id for log in run_log.unsent_logs()] == [run.run_id]


@pytest.mark.slow
def test_a_server_that_is_killed_during_a_run_and_restarted_gets_everything(litlab, mlflow_server, fit, line, tmp_path):
    def restart(epoch):
        if epoch == 1:
            server.kill()
            threading.Thread(target=server.start).start()

    with mlflow_server(tmp_path) as server:
        line.port = server.port
        outcome = fit(restart)
        assert outcome.code == 0, outcome.err
        while litlab("sync").code:
            time.sleep(1)
        assert_all_is_there_once(server, outcome, tmp_path.name)
        assert litlab("test", outcome.run_id, "--tracking_uri", line.uri).code == 0


@pytest.mark.slow
def test_a_fit_on_a_server_prints_the_page_of_its_runs_and_a_view_of_them_is_saved(fit, line, server, tmp_path):
    done = fit(lambda epoch: None)
    assert done.code == 0, done.err
    experiment = Store(server.uri).client.get_experiment_by_name(tmp_path.name)
    page = f"/#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
    assert done.out.count(f"{line.uri}{page}\n") == 2, "before the first epoch, and at the end"
    assert command_or_address(server.uri, tmp_path.name) == f"{server.uri}{page}&viewStateShareKey=litlab"

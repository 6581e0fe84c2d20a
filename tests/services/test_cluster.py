"""A study on two real Ray nodes, whose parts are killed: an exact total, no trial counted twice, nothing left."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from mlflow import MlflowClient

pytest.importorskip("ray")

from sweeps.search.trial_state import INTERRUPTED, LOSSES, REASON, counted_trials, params_key, trial_params
from tests.ray_cluster import RayCluster, is_alive, send

pytestmark = pytest.mark.services

PROGRAM = "from litlab.cli import console; console()"
TRIALS, EPOCHS = 5, 30
SPACE = {
    "experiment": "digits-mlp",
    "metric": "val/acc",
    "sampler": "random",
    "pruner": "none",
    "trials": TRIALS,
    "confirm": 0,
    "set": {"trainer.max_epochs": EPOCHS},
    "space": {"model.dropout": {"low": 0.0, "high": 0.5}},
}


class Study:
    """A study of a folder, and its runs on the tracking server."""

    def __init__(self, folder: Path, tracking: str) -> None:
        self.folder, self.name, self.tracking = folder, folder.name, tracking
        (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
        self.client = MlflowClient(tracking)

    def start(self, cluster: RayCluster, *arguments: str, space: bool = True) -> "subprocess.Popen[str]":
        """Start `litlab sweep` on the cluster, or another command, with its output in files."""
        own = ["sweep", "-c", "space.yaml", "--study", self.name, "--storage", f"sqlite:///{self.folder}/optuna.db"]
        command = [sys.executable, "-c", PROGRAM, *(own if space else []), *arguments, "--cluster", cluster.address]
        environment = {**cluster.environment, "MLFLOW_TRACKING_URI": self.tracking, "PYTHONUNBUFFERED": "1"}
        with (self.folder / "out").open("a") as out, (self.folder / "err").open("a") as err:
            return subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=out, stderr=err, text=True, start_new_session=True
            )

    @property
    def output(self) -> str:
        return (self.folder / "out").read_text() + (self.folder / "err").read_text()

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        try:
            return optuna.load_study(study_name=self.name, storage=f"sqlite:///{self.folder}/optuna.db").trials
        except KeyError:
            return []

    @property
    def counted(self) -> list[optuna.trial.FrozenTrial]:
        return counted_trials(self.trials, is_grid=False)

    def runs(self, status: str = "") -> list[Any]:
        experiment = self.client.get_experiment_by_name(f"{self.name}-sweep")
        found = self.client.search_runs([experiment.experiment_id]) if experiment else []
        children = [run for run in found if "mlflow.parentRunId" in run.data.tags]
        return [run for run in children if status in ("", run.info.status)]

    def check(self, states: dict[str, int], *, lost: int = 0) -> None:
        """Check that the study is complete, with each trial counted once, and that nothing is left active."""
        assert Counter(trial.state.name for trial in self.counted) == states, self.output
        assert len(self.counted) == TRIALS
        interrupted = [trial for trial in self.trials if INTERRUPTED in trial.user_attrs]
        assert len(interrupted) >= lost
        times = Counter(params_key(trial_params(trial)) for trial in self.trials)
        again = Counter(params_key(trial_params(trial)) for trial in interrupted)
        assert times == {key: 1 + again[key] for key in times}, "each is queued again once for each loss"
        assert not self.runs("RUNNING")
        values = {run.data.tags["trial"]: run for run in self.runs("FINISHED")}
        for trial in self.counted:
            if trial.state.name == "COMPLETE":
                assert values[str(trial.number)].data.metrics["selected/val/acc"] == trial.value


@pytest.fixture(scope="module")
def server(mlflow_server: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("server")) as server:
        yield server.uri


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Two nodes with one CPU each. A test that kills the second one starts another."""
    cluster = RayCluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.start_head()
        cluster.add_node()
        cluster.wait_for(2)
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def study(tmp_path: Path, server: str, request: pytest.FixtureRequest) -> Study:
    folder = tmp_path / request.node.name.removeprefix("test_")[:40]
    folder.mkdir()
    return Study(folder, server)


def last(cluster: RayCluster) -> Any:
    return cluster.nodes[-1]


def end(process: "subprocess.Popen[str]", study: Study, code: int = 0) -> None:
    assert process.wait(timeout=400) == code, study.output
    assert "Traceback" not in study.output


def test_a_training_that_is_killed_fails_once(cluster: RayCluster, study: Study, until: Callable[..., Any]) -> None:
    process = study.start(cluster)
    (victim,) = until(lambda: last(cluster).trainings() if len(study.runs("RUNNING")) == 2 else [])
    os.kill(victim, signal.SIGKILL)
    end(process, study)
    study.check({"COMPLETE": TRIALS - 1, "FAIL": 1})
    (failed,) = [trial for trial in study.counted if trial.state.name == "FAIL"]
    assert failed.user_attrs[REASON].startswith("killed (SIGKILL)")
    assert {run.info.status for run in study.runs() if run.data.tags["trial"] == str(failed.number)} == {"FAILED"}
    assert not any(node.agents() for node in cluster.nodes)


def test_a_trial_whose_agent_is_killed_is_trained_again(
    cluster: RayCluster, study: Study, until: Callable[..., Any]
) -> None:
    process = study.start(cluster)
    trainings = until(lambda: last(cluster).trainings() if len(study.runs("RUNNING")) == 2 else [])
    (agent,) = last(cluster).agents()
    os.kill(agent, signal.SIGKILL)
    until(lambda: not any(map(is_alive, trainings)), 30)
    end(process, study)
    study.check({"COMPLETE": TRIALS}, lost=1)
    assert {trial.user_attrs.get(LOSSES) for trial in study.trials} == {None, 1}
    assert "lost: node" in study.output


def test_a_trial_whose_node_loses_power_is_trained_again_and_a_node_that_joins_trains(
    cluster: RayCluster, study: Study, until: Callable[..., Any]
) -> None:
    process = study.start(cluster)
    until(lambda: last(cluster).trainings() and len(study.runs("RUNNING")) == 2)
    last(cluster).kill()
    new = cluster.add_node()
    until(lambda: "lost: node" in study.output)
    until(new.trainings)
    end(process, study)
    study.check({"COMPLETE": TRIALS}, lost=1)


def test_a_node_that_is_frozen_and_wakes_up_counts_nothing_twice(
    cluster: RayCluster, study: Study, until: Callable[..., Any]
) -> None:
    process = study.start(cluster)
    node = last(cluster)
    until(lambda: node.trainings() and len(study.runs("RUNNING")) == 2)
    frozen = node.processes()
    node.signal(signal.SIGSTOP)
    until(lambda: "lost: node" in study.output)
    for pid in frozen:
        send(pid, signal.SIGCONT)
    until(lambda: not any(map(is_alive, frozen)), 60)
    cluster.add_node()
    end(process, study)
    study.check({"COMPLETE": TRIALS}, lost=1)


def test_the_same_command_goes_on_after_the_controller_was_killed(
    cluster: RayCluster, study: Study, until: Callable[..., Any]
) -> None:
    process = study.start(cluster)
    until(lambda: len(study.runs("RUNNING")) == 2 and study.counted)
    trainings = [pid for node in cluster.nodes for pid in node.trainings()]
    process.kill()
    process.wait()
    until(lambda: not any(map(is_alive, trainings)), 60)
    until(lambda: not any(node.agents() for node in cluster.nodes), 60)
    end(study.start(cluster), study)
    study.check({"COMPLETE": TRIALS})


def test_ctrl_c_stops_the_trainings_and_the_same_command_goes_on(
    cluster: RayCluster, study: Study, until: Callable[..., Any]
) -> None:
    process = study.start(cluster)
    until(lambda: len(study.runs("RUNNING")) == 2 and study.counted)
    os.killpg(process.pid, signal.SIGINT)
    end(process, study, 130)
    assert not study.runs("RUNNING")
    assert study.runs("KILLED")
    assert not any(node.agents() for node in cluster.nodes)
    end(study.start(cluster), study)
    study.check({"COMPLETE": TRIALS})


def test_seeds_are_trained_once_each_although_an_agent_is_killed(
    cluster: RayCluster, study: Study, until: Callable[..., Any]
) -> None:
    name = ["--name", study.name]
    command = ["fit", "digits-mlp", "--seeds", "4", *name, "--trainer.max_epochs", str(EPOCHS)]

    def runs() -> list[Any]:
        experiment = study.client.get_experiment_by_name(study.name)
        return study.client.search_runs([experiment.experiment_id]) if experiment else []

    def seeds(status: str) -> list[str]:
        return sorted(run.data.tags["seed"] for run in runs() if run.info.status == status and "seed" in run.data.tags)

    process = study.start(cluster, *command, space=False)
    until(lambda: len(seeds("FINISHED")) == 2 and len(seeds("RUNNING")) == 2)
    os.kill(last(cluster).agents()[0], signal.SIGKILL)
    end(process, study)
    assert "lost, queued again: node" in study.output
    assert seeds("FINISHED") == ["0", "1", "2", "3"]
    assert "RUNNING" not in {run.info.status for run in runs()}


def test_a_wrong_token_and_an_address_without_a_cluster_are_refused(
    cluster: RayCluster, study: Study, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = cluster.address
    monkeypatch.setitem(cluster.environment, "RAY_AUTH_TOKEN", "f" * 64)
    assert study.start(cluster).wait(timeout=200) == 2
    assert f"litlab: --cluster {address}: " in study.output
    assert "The token of this process must be that of the cluster" in study.output
    monkeypatch.setattr(cluster, "address", f"127.0.0.1:{free_port()}")
    assert study.start(cluster).wait(timeout=200) == 2
    assert f"--cluster {cluster.address}: no Ray head answers there" in study.output
    assert not study.trials

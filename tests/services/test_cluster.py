"""A study on two real Ray nodes, whose parts are killed: an exact total, no trial counted twice, nothing left."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from sweeps.search.trial_state import LOSSES, REASON
from tests.cluster_study import EPOCHS, SPACE, TRIALS, Study
from tests.ray_cluster import RayCluster, is_alive, running_cluster, send

pytestmark = pytest.mark.services

FROZEN_S = 16  # longer than it takes to see that a node is dead, see tests/ray_cluster.py


@pytest.fixture(scope="module")
def server(mlflow_server: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("server")) as server:
        yield server.uri


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A cluster for several tests. One that kills the second node starts another."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def study(tmp_path: Path, server: str) -> Study:
    return Study(tmp_path / tmp_path.name, server)  # the server's runs of each test are below another name


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


def test_a_controller_that_is_frozen_goes_on_when_it_wakes(
    cluster: RayCluster, study: Study, until: Callable[..., Any]
) -> None:
    process = study.start(cluster)
    until(lambda: len(study.runs("RUNNING")) == 2 and study.counted)
    process.send_signal(signal.SIGSTOP)
    time.sleep(FROZEN_S)
    process.send_signal(signal.SIGCONT)
    end(process, study)
    study.check({"COMPLETE": TRIALS})


def test_a_head_that_is_frozen_for_a_while_is_waited_for(
    cluster: RayCluster, study: Study, until: Callable[..., Any]
) -> None:
    process, head = study.start(cluster), cluster.nodes[0].head()
    until(lambda: len(study.runs("RUNNING")) == 2 and study.counted)
    send(head, signal.SIGSTOP)
    time.sleep(FROZEN_S)
    send(head, signal.SIGCONT)
    end(process, study)
    study.check({"COMPLETE": TRIALS})


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_without_a_head_the_sweep_ends_and_the_same_command_goes_on_with_another(
    tmp_path: Path, study: Study, until: Callable[..., Any], number: int
) -> None:
    with running_cluster(tmp_path) as first:
        process = study.start(first)
        until(lambda: len(study.runs("RUNNING")) == 2 and study.counted)
        send(first.nodes[0].head(), number)
        end(process, study, 1)
        assert study.errors == [
            f"litlab: --cluster {first.address}: Ray's head does not answer. Run the same command again to continue, "
            "on this or another cluster."
        ]
        assert not study.runs("RUNNING")
        assert not any(node.trainings() for node in first.nodes)
    with running_cluster(tmp_path) as second:
        end(study.start(second), study)
    study.check({"COMPLETE": TRIALS})


def test_ctrl_c_stops_a_sweep_without_a_head_at_once(tmp_path: Path, study: Study, until: Callable[..., Any]) -> None:
    with running_cluster(tmp_path) as cluster:
        process = study.start(cluster)
        until(lambda: len(study.runs("RUNNING")) == 2)
        send(cluster.nodes[0].head(), signal.SIGSTOP)
        time.sleep(3)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=30) == 130, study.output
        assert not study.runs("RUNNING")


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


ON_CPU = ["--trainer.accelerator", "cpu", "--trainer.strategy", "ddp"]


def test_a_training_on_two_nodes_has_the_losses_of_two_processes_on_one(cluster: RayCluster, study: Study) -> None:
    command = ["fit", "digits-mlp", "--seeds", "1", "--trainer.max_epochs", "3", *ON_CPU]
    end(study.start(cluster, *command, "--name", "nodes", "--trainer.num_nodes", "2", space=False), study)
    end(study.start(None, *command, "--name", "devices", "--trainer.devices", "2", space=False), study)
    curves = []
    for name in ("nodes", "devices"):
        experiment = study.client.get_experiment_by_name(name)
        found = study.client.search_runs([experiment.experiment_id])
        (run,) = [run for run in found if "mlflow.parentRunId" in run.data.tags]
        assert (run.info.status, run.data.tags["litlab.processes"]) == ("FINISHED", "2")
        keys = ("train/loss", "val/loss", "test/loss")
        histories = {key: study.client.get_metric_history(run.info.run_id, key) for key in keys}
        curves.append({(key, point.step): point.value for key, points in histories.items() for point in points})
    assert len(curves[0]) == 7
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)


def test_a_training_on_two_nodes_of_which_one_process_is_killed_fails_once(
    cluster: RayCluster, study: Study, until: Callable[..., Any]
) -> None:
    process = study.start(cluster, "--trainer.num_nodes", "2", *ON_CPU)
    alive = cluster.nodes[0], last(cluster)  # earlier tests have killed those between
    until(lambda: all(node.trainings() for node in alive) and study.runs("RUNNING"))
    (victim,) = last(cluster).trainings()
    os.kill(victim, signal.SIGKILL)
    end(process, study)
    study.check({"COMPLETE": TRIALS - 1, "FAIL": 1})
    (failed,) = [trial for trial in study.counted if trial.state.name == "FAIL"]
    assert "killed (SIGKILL)" in failed.user_attrs[REASON]  # after the node's name if it was not the first process
    assert not any(node.trainings() for node in cluster.nodes)


def test_a_trial_on_two_nodes_is_pruned_on_both(cluster: RayCluster, tmp_path: Path, server: str) -> None:
    study = Study(tmp_path / "pruned", server, space={**SPACE, "pruner": {"name": "threshold", "lower": 1.1}})
    end(study.start(cluster, "--trainer.num_nodes", "2", *ON_CPU), study, 1)
    study.check({"PRUNED": TRIALS})
    assert {len(study.client.get_metric_history(run.info.run_id, "val/acc")) for run in study.runs("KILLED")} == {1}


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

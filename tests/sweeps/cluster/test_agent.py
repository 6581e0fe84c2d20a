"""What an agent does on its node, without Ray: trains in its slots, reports, answers, stops and kills."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest

from pipelines.runtime.errors import UserError
from pipelines.tracking.store import Store
from sweeps.cluster import gpus
from sweeps.cluster.agent import Agent, local_job
from sweeps.cluster.gpus import take_gpus
from sweeps.workers.job import Job

SETTINGS = {"gpus": 0, "threads": 1, "timeout_s": None, "system_metrics": False}


@pytest.fixture
def agent(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the agent sets it
    agent = Agent(slots=2, variables={"MLFLOW_OF_THE_CONTROLLER": "1"}, **SETTINGS)
    yield agent
    agent.close()


@pytest.fixture
def job(moody, tmp_path, uri):
    """Return what the controller sends of a job of the test model."""
    moody({"model.score": [0.5]})
    arguments = [str(tmp_path / "moody.yaml")]
    return lambda *keys: asdict(Job([*arguments, *keys], experiment="moody", tracking_uri=uri, metric="val/acc"))


def events_until_the_end(agent, commands):
    """Answer each epoch with go on; return all events."""
    events = []
    while True:
        received = agent.exchange(commands)
        events += received
        commands = [("answer", number, False) for number, message, _ in received if message[0] == "epoch"]
        if any(message[0] not in ("run", "epoch") for _, message, _ in received):
            return events


def test_a_training_reports_its_run_each_epoch_and_its_metrics(agent, job):
    assert agent.facts()["slots"] == 2
    assert os.environ["MLFLOW_OF_THE_CONTROLLER"] == "1"
    events = events_until_the_end(agent, [("start", [7], [job()])])
    assert {number for number, _, _ in events} == {7}
    assert [message[0] for _, message, _ in events] == ["run", "epoch", "epoch", "done"], events
    run, first, second, done = (message for _, message, _ in events)
    assert run[2] == 2
    assert (first[1:], second[1:]) == ((1, 0.5), (2, 0.5))
    assert done[1]["selected/val/acc"] == 0.5
    assert Store().find(run[1]).status == "FINISHED"


def test_a_stop_ends_a_training(agent, job):
    slow = ["--trainer.max_epochs", "1000", "--model.slow", "0.1"]
    agent.exchange([("start", [1], [job(*slow)])])
    agent.act([("stop", 1, None)])
    events = events_until_the_end(agent, [])
    assert events[-1][:2] == (1, ("stopped", events[-1][1][1]))


def test_a_training_is_killed_and_the_call_that_waits_ends_with_the_agent(agent, job):
    agent.exchange([("start", [1], [job("--trainer.max_epochs", "1000", "--model.slow", "0.1")])])
    agent.act([("kill", 1, None)])
    *_, (number, message, _) = events_until_the_end(agent, [])
    assert (number, message[0]) == (1, "died")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(agent.exchange, [])
        agent.close()
        assert waiting.result(timeout=10) == []


def test_the_output_of_a_training_that_failed_is_sent(agent, job):
    *_, (number, message, log) = events_until_the_end(agent, [("start", [1], [job("--model.mood", "raises")])])
    assert (number, message) == (1, ("failed", "RuntimeError: out of luck"))
    assert "RuntimeError: out of luck" in log


def test_a_refused_experiment_is_an_answer(agent, job):
    kind, reason = agent.check(job("--model.scroe", "1"), [])
    assert kind == "refused"
    assert "scroe" in reason
    kind, facts = agent.check(job(), [])
    assert (kind, facts["max_epochs"]) == ("done", 2)


def test_keys_of_the_data_take_the_variables_of_the_node(monkeypatch):
    monkeypatch.setenv("SCRATCH", "/local/7")
    values = asdict(Job(["mnist-mlp", "--data.data_dir=$SCRATCH/mnist", "--data.cache", "${SCRATCH}", "--name", "$X"]))
    assert local_job(values).arguments[1:] == [
        "--data.data_dir=/local/7/mnist",
        "--data.cache",
        "/local/7",
        "--name",
        "$X",
    ]
    with pytest.raises(UserError, match=r"node \S+ has no environment variable NOWHERE"):
        local_job(asdict(Job(["mnist-mlp", "--data.data_dir", "$NOWHERE"])))


def test_gpus_that_others_fill_are_left_out(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    lines = [f"{gpu}, GPU-{gpu}f, {used}, 81559" for gpu, used in enumerate((4, 70000, 2000, 60000))]
    program.write_text("#!/bin/sh\necho '" + "\n".join(lines) + "'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,GPU-3f")
    monkeypatch.setattr(gpus, "WAIT_S", 1.5)  # they may be those of an agent that has just died
    assert take_gpus(4, 1) == (2, {"1": "70000 of 81559 MiB", "GPU-3f": "60000 of 81559 MiB"})
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,2"
    assert take_gpus(8, 0.5) == (4, {})
    assert take_gpus(8, 0) == (8, {})
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "", "trainings that need no GPU see none"

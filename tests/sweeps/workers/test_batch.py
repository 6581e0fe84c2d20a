"""Trainings side by side: each has its end, whatever happens to the others."""

from pathlib import Path

import pytest

from pipelines.tracking.store import Store
from sweeps.workers.batch import run_jobs
from sweeps.workers.display import LiveDisplay
from sweeps.workers.job import Job
from sweeps.workers.pool import Pool


@pytest.fixture
def pool(tmp_path):
    (tmp_path / "pool").mkdir()
    with Pool(2, tmp_path / "pool") as pool:
        pool.warm_up()
        yield pool


@pytest.fixture
def store(uri):
    return Store(uri)


@pytest.fixture
def train(pool, store):
    """Trains a list with two slots."""

    def run(specs, **settings):
        with LiveDisplay() as screen:
            return run_jobs(pool, specs, store, screen, title="all", **settings)

    return run


@pytest.fixture
def spec(moody, tmp_path, uri):
    """A specification of the moody model."""
    moody({"model.score": [0.5]})

    def make(*arguments, **settings):
        given = {"experiment": "moody", "tracking_uri": uri, "test": True, **settings}
        return Job([str(tmp_path / "moody.yaml"), *arguments], **given)

    return make


def runs_of(store, name):
    return store.search([store.experiment_id(name)], "", ["attributes.start_time ASC"])


def log_of(run):
    return (Path(run.artifact_uri.removeprefix("file://")) / "log.txt").read_text()


def test_two_trainings_of_one_seed_share_no_file(train, spec, store):
    scores = {"one": 0.25, "two": 0.75}
    moods = ["--model.mood", "raises"]
    specs = [spec("--model.score", str(score), *moods, experiment=name) for name, score in scores.items()]
    ends = train(specs)
    assert [end.status for end in ends] == ["FAILED"] * 2
    assert len({end.job.log_file for end in ends}) == len({end.job.job_file for end in ends}) == 2
    for name, score in scores.items():
        (run,) = runs_of(store, name)
        assert run.params["model.score"] == str(score)
        assert log_of(run).count("RuntimeError: out of luck") == 1


def test_what_fails_costs_no_other_and_each_end_is_told(train, spec, store, capfd):
    told = []
    moods = ["fine", "raises", "killed", "fine"]
    specs = [spec("--model.mood", mood, run_name=f"{mood} {place}") for place, mood in enumerate(moods)]
    ends = train(specs, on_result=told.append)
    assert told == ends
    status = {end.job.run_name: end.status for end in ends}
    assert status == {"fine 0": "FINISHED", "raises 1": "FAILED", "killed 2": "FAILED", "fine 3": "FINISHED"}
    reasons = {end.job.run_name: end.reason for end in ends}
    assert reasons["raises 1"] == "RuntimeError: out of luck"
    assert reasons["killed 2"].startswith("killed (SIGKILL)")
    for run in runs_of(store, "moody"):
        assert run.status == status[run.name]
        assert reasons[run.name] in run.tags.get("litlab.reason", "")
    done = next(end for end in ends if end.status == "FINISHED")
    assert done.metrics["test/acc"] == done.metrics["selected/val/acc"] == 0.5
    out = capfd.readouterr().out
    assert "moody  fine 0  test/acc 0.5000" in out
    assert "moody  raises 1  failed: RuntimeError: out of luck" in out


def test_a_stop_ends_what_runs_and_begins_nothing_more(train, spec, store, pool):
    slow = ["--trainer.max_epochs", "1000", "--model.slow", "0.1"]
    specs = [spec("--model.score", "0.9"), spec(*slow), spec(*slow), spec()]

    def stop(end):
        pool.stop_requests = 1

    ends = train(specs, on_result=stop)
    assert ends[0].status == "FINISHED"
    assert {end.status for end in ends[1:]} == {"KILLED"}
    assert len(ends) < len(specs)
    assert "RUNNING" not in [run.status for run in runs_of(store, "moody")]
    assert pool.children == []


def test_an_error_of_the_caller_leaves_neither_process_nor_run(train, spec, store, pool):
    def fail(end):
        raise ValueError("of the caller")

    specs = [spec(), spec("--trainer.max_epochs", "1000", "--model.slow", "0.1")]
    with pytest.raises(ValueError, match="of the caller"):
        train(specs, on_result=fail)
    assert pool.children == []
    assert "RUNNING" not in [run.status for run in runs_of(store, "moody")]


def test_a_terminal_shows_how_far_the_list_and_each_training_is(train, spec, monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    train([spec("--model.slow", "0.4"), spec("--model.slow", "0.4", seed=1)], reused=20)
    out = capfd.readouterr().out
    assert "all: 20 of 22 runs, 2 running, 20 reused" in out
    assert "epoch   1" in out
    assert "0.5000" in out, "what the model monitors"


def test_a_baseline_is_trained_beside_the_networks(train, spec, store, uri):
    arguments = ["svm-linear", "digits-mlp", "--C", "0.01", "0.1"]
    baseline = Job(arguments, seed=3, experiment="digits-svm", tracking_uri=uri, verb="baseline")
    refused = Job(["svm-cubic", "digits-mlp"], experiment="digits-svm", tracking_uri=uri, verb="baseline")
    ends = train([baseline, refused, spec()])
    assert {end.job.label: end.status for end in ends if end.job.verb == "fit"} == {"seed=0": "FINISHED"}
    assert next(end.reason for end in ends if end.job is refused).startswith("'svm-cubic' is not a baseline")
    runs = runs_of(store, "digits-svm")
    assert [(run.name, run.status) for run in runs] == [("C=0.01", "FINISHED"), ("C=0.1", "FINISHED")]
    assert {run.tags["seed"] for run in runs} == {"3"}
    assert all(run.metrics["test/acc"] > 0.8 for run in runs)

"""Jobs that run in parallel: each gets its own result, whatever happens to the others."""

import os
from pathlib import Path

import pytest

from pipelines.runtime.errors import UserError
from pipelines.tracking.store import Store
from sweeps.workers.batch import explained_loss, run_jobs
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
    """Trains a list of jobs with two slots; `on_line` is called with each line that is printed."""

    def run(jobs, on_line=None, **settings):
        with LiveDisplay() as display:
            display.print = on_line or display.print
            return run_jobs(pool, jobs, store, display, title="all", **settings)

    return run


@pytest.fixture
def job(moody, tmp_path, uri):
    """Makes jobs of the test model."""
    moody({"model.score": [0.5]})

    def make(*arguments, **settings):
        defaults = {"experiment": "moody", "tracking_uri": uri, "test": True, **settings}
        return Job([str(tmp_path / "moody.yaml"), *arguments], **defaults)

    return make


def runs_of(store, name):
    return store.search([store.experiment_id(name)], "", ["attributes.start_time ASC"])


def log_of(run):
    return (Path(run.artifact_uri.removeprefix("file://")) / "log.txt").read_text()


@pytest.mark.slow
def test_workers_are_spawned_where_a_fork_is_not_safe(tmp_path, job, store, monkeypatch):
    monkeypatch.setattr("sweeps.workers.pool.FORK_IS_SAFE", False)
    monkeypatch.delattr(os, "killpg")  # as on Windows
    with Pool(1, tmp_path) as pool, LiveDisplay() as display:
        pool.warm_up()
        (result,) = run_jobs(pool, [job()], store, display, title="one")
    assert (result.status, result.metrics["test/acc"]) == ("FINISHED", 0.5)


def test_two_jobs_with_one_seed_share_no_file(train, job, store):
    scores = {"one": 0.25, "two": 0.75}
    moods = ["--model.mood", "raises"]
    jobs = [job("--model.score", str(score), *moods, experiment=name) for name, score in scores.items()]
    results = train(jobs)
    assert [result.status for result in results] == ["FAILED"] * 2
    assert len({result.job.log_file for result in results}) == len({result.job.job_file for result in results}) == 2
    for name, score in scores.items():
        (run,) = runs_of(store, name)
        assert run.params["model.score"] == str(score)
        assert log_of(run).count("RuntimeError: out of luck") == 1


def test_a_failed_job_affects_no_other_and_each_result_is_reported(train, job, store, capfd):
    moods = ["fine", "raises", "killed", "fine"]
    jobs = [job("--model.mood", mood, run_name=f"{mood} {place}") for place, mood in enumerate(moods)]
    results = train(jobs)
    status = {result.job.run_name: result.status for result in results}
    assert status == {"fine 0": "FINISHED", "raises 1": "FAILED", "killed 2": "FAILED", "fine 3": "FINISHED"}
    reasons = {result.job.run_name: result.reason for result in results}
    assert reasons["raises 1"] == "RuntimeError: out of luck"
    assert reasons["killed 2"].startswith("killed (SIGKILL)")
    for run in runs_of(store, "moody"):
        assert run.status == status[run.name]
        assert reasons[run.name] in run.tags.get("litlab.reason", "")
    done = next(result for result in results if result.status == "FINISHED")
    assert done.metrics["test/acc"] == done.metrics["selected/val/acc"] == 0.5
    out = capfd.readouterr().out
    assert "moody  fine 0  test/acc 0.5000" in out
    assert "moody  raises 1  failed: RuntimeError: out of luck" in out


def test_a_stop_request_ends_running_jobs_and_starts_no_others(train, job, store, pool):
    slow = ["--trainer.max_epochs", "1000", "--model.slow", "0.1"]
    jobs = [job("--model.score", "0.9"), job(*slow), job(*slow), job()]

    def stop(line):
        pool.stop_requests = 1

    results = train(jobs, on_line=stop)
    assert results[0].status == "FINISHED"
    assert {result.status for result in results[1:]} == {"KILLED"}
    assert len(results) < len(jobs)
    assert "RUNNING" not in [run.status for run in runs_of(store, "moody")]
    assert pool.children == []


def test_an_error_of_the_display_leaves_no_process_and_no_active_run(train, job, store, pool):
    def fail(line):
        raise ValueError("of the display")

    jobs = [job(), job("--trainer.max_epochs", "1000", "--model.slow", "0.1")]
    with pytest.raises(ValueError, match="of the display"):
        train(jobs, on_line=fail)
    assert pool.children == []
    assert "RUNNING" not in [run.status for run in runs_of(store, "moody")]


def test_a_terminal_shows_the_progress_of_the_list_and_of_each_training(train, job, monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich treats the output as a terminal
    train([job("--model.slow", "0.4"), job("--model.slow", "0.4", seed=1)], reused=20)
    out = capfd.readouterr().out
    assert "all: 20 of 22 runs, 2 running, 20 reused" in out
    assert "1/2" in out
    assert "0.5000" in out, "the monitored metric"


@pytest.mark.slow
def test_baselines_run_in_parallel_with_networks(train, job, store, uri):
    arguments = ["svm-linear", "digits-mlp", "--C", "0.01", "0.1"]
    baseline = Job(arguments, seed=3, experiment="digits-svm", tracking_uri=uri, verb="baseline")
    refused = Job(["svm-cubic", "digits-mlp"], experiment="digits-svm", tracking_uri=uri, verb="baseline")
    results = train([baseline, refused, job()])
    assert {result.job.label: result.status for result in results if result.job.verb == "fit"} == {"seed=0": "FINISHED"}
    (reason,) = [result.reason for result in results if result.job is refused]
    assert reason.startswith("'svm-cubic' is not a baseline")
    runs = runs_of(store, "digits-svm")
    assert [(run.name, run.status) for run in runs] == [("C=0.01", "FINISHED"), ("C=0.1", "FINISHED")]
    assert {run.tags["seed"] for run in runs} == {"3"}
    assert all(run.metrics["test/acc"] > 0.8 for run in runs)


def test_a_tracking_store_that_is_lost_is_one_message_with_its_reason():
    from mlflow.exceptions import MlflowException

    message = r"Lost the tracking server or database\. Run the same command again to continue\. \(connection refused\)"
    with pytest.raises(UserError, match=message), explained_loss():
        raise MlflowException("connection refused")

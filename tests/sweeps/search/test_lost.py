"""Trainings that are lost with their node: queued again once for each loss, a few times at most, and counted once."""

import time
import uuid
from collections import Counter

import pytest

from pipelines.tracking.labels import Labels
from pipelines.tracking.store import Store
from pipelines.tracking.tags import KEY_TAG, REASON_TAG, SEED_TAG, TRIAL_STATE_TAG, TRIAL_TAG
from sweeps.search.space_files import read_space
from sweeps.search.sweep import run_sweep
from sweeps.search.trial_state import INTERRUPTED, LOSSES, REASON, params_key
from sweeps.workers.batch import run_jobs
from sweeps.workers.display import LiveDisplay
from sweeps.workers.job import Job
from sweeps.workers.pool import Pool, WorkerProcess

LOST = "node seven: its agent died, or the node"


class UnreliablePool(Pool):
    """A pool that trains nothing: each run ends at once, or is lost with its node as often as it is told.

    Attributes:
        losses: How often a job is lost, by its `values`' score and seed.
        late: Whether the runs that are lost have finished.
    """

    def __init__(self, folder, losses=None, *, late=False):
        super().__init__(2, folder)
        self.losses, self.late = Counter(losses or {}), late

    def start(self, *jobs):
        (job,) = jobs
        child = WorkerProcess(job, None, None, time.monotonic(), [], None)
        job.slot, store = self.free_slots[0], Store(job.tracking_uri)
        tags = {**job.tags, SEED_TAG: str(job.seed), KEY_TAG: uuid.uuid4().hex}
        child.run_id = store.create_run(job.experiment, job.run_name, tags).run_id
        self.children.append(child)

    def check(self, job, configurations):
        with Pool(1, self._folder) as pool:
            pool.warm_up()
            return pool.check(job, configurations)

    def events(self, timeout):
        return [self._end(child) for child in list(self.children)]

    def kill_all(self):
        self.children.clear()

    def _end(self, child):
        self.children.remove(child)
        score = child.job.values.get("model.score", 0.5)
        is_lost = self.losses[score, child.job.seed] > 0
        self.losses[score, child.job.seed] -= 1
        client, metrics = Store(child.job.tracking_uri).client, {"selected/val/acc": score}
        if not is_lost or self.late:
            client.log_metric(child.run_id, "selected/val/acc", score)
            client.set_terminated(child.run_id, "FINISHED")
        return child, ("lost", LOST) if is_lost else ("done", metrics)


@pytest.fixture
def search(moody, tmp_path, uri):
    """Search the grid of two scores with a pool."""

    def run(losses, *, late=False, **settings):
        space = read_space(str(moody({"model.score": [0.25, 0.75]}, metric="val/acc", **settings)), {})
        pool = UnreliablePool(tmp_path, losses, late=late)
        return run_sweep(space, pool, "study", None, uri, [], 1, Labels(), "", "", retry_failed=False)

    return run


def test_a_lost_trial_is_queued_again_once_for_each_loss(search, results, capfd):
    result = search({(0.75, 0): 2})
    assert (result.n_finished, result.n_failed, result.best.value) == (2, 0, 0.75)
    assert results.states == ["COMPLETE"] * 2
    tried = Counter(params_key(trial.params) for trial in results.trials)
    assert sorted(tried.values()) == [1, 3]
    lost = [trial for trial in results.trials if INTERRUPTED in trial.user_attrs]
    assert [trial.user_attrs[INTERRUPTED] for trial in lost] == [LOST] * 2
    assert [trial.user_attrs[LOSSES] for trial in lost] == [1, 2]
    ended = {run.data.tags[TRIAL_TAG]: run for run in results.children()}
    for trial in lost:
        run = ended[str(trial.number)]
        assert (run.info.status, run.data.tags[TRIAL_STATE_TAG], run.data.tags[REASON_TAG]) == ("KILLED", "FAIL", LOST)
    out = capfd.readouterr().out
    assert f"lost: {LOST}" in out
    assert f"lost for the second time: {LOST}" in out


def test_the_third_loss_is_a_failure_with_its_reason(search, results):
    result = search({(0.75, 0): 100})
    assert (result.n_finished, result.n_failed) == (2, 1)
    assert len(results.trials) == 4
    (failed,) = [trial for trial in results.counted if trial.state.name == "FAIL"]
    assert failed.user_attrs[REASON] == f"lost 3 times; the last: {LOST}"
    assert "RUNNING" not in {run.info.status for run in results.runs}


def test_a_run_that_had_finished_before_its_node_was_lost_counts(search, results):
    result = search({(0.25, 0): 1, (0.75, 0): 1}, late=True)
    assert (result.n_finished, result.best.value) == (2, 0.75)
    assert len(results.trials) == len(results.children()) == 2


def test_a_run_that_finishes_after_its_trial_was_given_to_another_does_not_count(search, results, uri):
    search({(0.75, 0): 100})
    late = [run for run in results.children() if run.info.status == "KILLED"]
    assert len(late) == 3
    for run in late:
        results.client.log_metric(run.info.run_id, "selected/val/acc", 0.99)
        results.client.set_terminated(run.info.run_id, "FINISHED")
    result = search({})
    assert (result.n_finished, result.n_failed, result.best.value) == (2, 1, 0.25)


def test_seeds_that_have_finished_are_not_trained_again_when_another_is_lost(search, results):
    result = search({(0.75, 1): 1}, seeds=2)
    assert (result.n_finished, result.best.value) == (2, 0.75)
    trained = Counter((run.data.tags["configuration"], run.data.tags[SEED_TAG]) for run in results.children())
    assert sorted(trained.values()) == [1, 1, 1, 2]


def test_a_lost_run_of_the_confirmation_is_repeated_once(search, results):
    result = search({(0.5, 1): 1, (0.75, 1): 2}, confirm=1)
    assert {label: len(runs) for label, runs in result.confirmed.items()} == {"best": 1, "default": 1}
    statuses = Counter(run.info.status for run in results.children("confirm"))
    assert statuses == {"FINISHED": 2, "KILLED": 3}


def test_a_job_of_a_list_fails_when_it_is_lost_for_the_third_time(tmp_path, uri):
    jobs = [Job([], seed=seed, experiment="listed", tracking_uri=uri, values={"model.score": 0.5}) for seed in (0, 1)]
    pool = UnreliablePool(tmp_path, {(0.5, 0): 3, (0.5, 1): 2})
    with LiveDisplay() as display:
        results = run_jobs(pool, jobs, Store(uri), display, title="all")
    assert {result.job.seed: (result.status, result.reason) for result in results} == {
        0: ("FAILED", f"lost 3 times; the last: {LOST}"),
        1: ("FINISHED", ""),
    }

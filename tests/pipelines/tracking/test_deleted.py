"""Runs and experiments that were deleted in MLflow stay deleted, and each command says so once."""

import pytest
from mlflow.entities import ViewType

from pipelines.diagnostics.check import Context
from pipelines.diagnostics.runs import check_unsent
from pipelines.diagnostics.storage import check_disk
from pipelines.tracking.run import Run
from pipelines.tracking.run_log import RunLog, home_of
from pipelines.tracking.store import Store
from pipelines.tracking.tags import PROCESS_TAG

pytestmark = pytest.mark.usefixtures("tables")

CALLBACK = """
from lightning.pytorch import Callback
from pipelines.tracking.store import Store

class Deletes(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            Store().client.delete_run(trainer.logger.run_id)
"""
FIT = ["fit", "digits-mlp", "--trainer.max_epochs", "2", "--trainer.enable_progress_bar", "false"]
VERBS = [
    ["test", "RUN"],
    ["validate", "RUN"],
    ["predict", "RUN"],
    ["resume", "RUN"],
    ["register", "RUN", "name"],
    ["explain", "filters", "RUN"],
    ["fit", "--ckpt_path", "RUN"],
    ["fit", "digits-mlp", "--weights", "RUN"],
]


def finished_run(experiment="an experiment", **tags):
    run = Run(Store(), experiment, "run", tags)
    run.log_metrics({"test/acc": 0.5}, 0)
    run.finish("FINISHED")
    return run.run_id


def test_every_verb_says_of_a_deleted_run_how_to_restore_it(litlab, uri):
    run_id = finished_run()
    Store().client.delete_run(run_id)
    restore = (
        f"run {run_id} was deleted: restore it with `MLFLOW_TRACKING_URI={uri} mlflow runs restore --run-id {run_id}`"
    )
    for verb in VERBS:
        outcome = litlab(*(run_id if part == "RUN" else part for part in verb))
        assert (outcome.code, outcome.out) == (2, ""), verb
        assert outcome.err == f"litlab: {restore}\n", verb
    compared = litlab("compare", finished_run("other"), run_id)
    assert compared.code == 0
    assert f"note: left out: {restore}" in compared.err


def test_of_a_run_that_was_deleted_with_its_experiment_the_experiment_is_restored(litlab):
    run_id = finished_run()
    experiment_id = Store().find(run_id).experiment_id
    Store().client.delete_experiment(experiment_id)
    refused = litlab("resume", run_id)
    assert refused.code == 2
    assert f"mlflow experiments restore --experiment-id {experiment_id}`" in refused.err


def test_old_runs_stay_deleted_when_a_new_run_restores_their_experiment():
    client, first, second = Store().client, finished_run(), finished_run()
    experiment_id = Store().find(first).experiment_id
    client.delete_run(first)
    client.delete_experiment(experiment_id)
    third = finished_run()
    active, deleted = (
        client.search_runs([experiment_id], "", view) for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY)
    )
    assert [run.info.run_id for run in active] == [third]
    assert {run.info.run_id for run in deleted} == {first, second}


@pytest.fixture
def deleted_in_training(litlab, tmp_path, monkeypatch):
    """The outcome of a fit whose run was deleted after its first epoch."""
    (tmp_path / "deletes.py").write_text(CALLBACK)
    monkeypatch.syspath_prepend(tmp_path)
    return litlab(*FIT, "--trainer.callbacks", "deletes.Deletes")


def test_a_run_that_is_deleted_while_it_trains_ends_with_one_message_and_is_not_reported_as_a_fault(
    litlab, uri, tmp_path, deleted_in_training
):
    run_id = deleted_in_training.run_id
    assert deleted_in_training.code == 0
    own = [line for line in deleted_in_training.err.splitlines() if line.startswith("litlab:")]
    assert len(own) == 1, own
    forget = f"or forget it with `litlab sync --forget {run_id}`"
    assert f"run {run_id} was deleted: restore it with" in own[0]
    assert forget in own[0]
    synced = litlab("sync")
    assert synced.code == 0
    assert f"{run_id}  FINISHED" in synced.out
    assert len(synced.err.splitlines()) == 1
    refused = litlab("resume", run_id)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert forget in refused.err
    (result,) = check_unsent(Context(uri, tmp_path, fix=False))
    assert result.state == "ok"
    assert forget in result.message


def test_a_run_that_is_restored_after_its_training_is_sent(litlab, deleted_in_training):
    run_id = deleted_in_training.run_id
    Store().client.restore_run(run_id)
    assert litlab("sync", "--forget", run_id).err.endswith(f"was not deleted: litlab sync {run_id} sends its data\n")
    assert litlab("sync").code == 0
    run = Store().find(run_id)
    assert run.status == "FINISHED"
    assert "test/acc" in run.metrics
    assert litlab("test", run_id).code == 0


def unsent_run(process=""):
    """A run with data that were not sent."""
    run = Run(Store(), "an experiment", "run", {})
    log = RunLog.load(home_of(run.store.uri, run.run_id))
    run.finish("FINISHED")
    log.process = {**log.process, PROCESS_TAG: process or log.process[PROCESS_TAG]}
    log.save()
    return run.run_id, log.home


def test_forget_deletes_the_unsent_data_of_deleted_runs_only(litlab):
    (first, home), (second, other), (alive, held) = unsent_run("1:0"), unsent_run("1:0"), unsent_run()
    for run_id in (first, alive):
        Store().client.delete_run(run_id)
    forgotten = litlab("sync", "--forget", first)
    assert (forgotten.code, forgotten.out) == (0, f"deleted {home}\n")
    assert not home.exists()
    assert litlab("sync", "--forget", second).code == 2
    assert "still running" in litlab("sync", "--forget", alive).err
    assert other.exists()
    assert held.exists()
    assert litlab("sync", "--forget").code == 2
    assert litlab("sync", "--forget", "0" * 32).code == 2


@pytest.mark.slow
def test_runs_that_doctor_deletes_permanently_are_forgotten(uri, tmp_path):
    (run_id, home), (_, other) = unsent_run("1:0"), unsent_run("1:0")
    Store().client.delete_run(run_id)
    *_, result = check_disk(Context(uri, tmp_path, fix=False, free=True))
    assert result.state == "fixed", result.message
    assert (home.exists(), other.exists()) == (False, True)


def test_a_run_that_was_deleted_permanently_can_be_forgotten(litlab):
    run_id, home = unsent_run("1:0")
    log = RunLog.load(home)
    log.run_id = "f" * 32
    log.home = home.with_name(log.run_id)
    log.save()
    Store().client.delete_run(run_id)
    unsent = litlab("sync")
    assert unsent.code == 1, "the data may be the only copy"
    assert "there is no run" in unsent.out
    assert litlab("sync", "--forget", log.run_id).code == 0
    assert not log.home.exists()

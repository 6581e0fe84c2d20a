"""A metric that is monitored but never logged: named before there is a run, or after the first validation."""

import pytest

from pipelines.config.cli import parse_config
from pipelines.runtime.errors import UserError
from pipelines.tracking.store import Store
from pipelines.training.job import prepare_training

CLASSES = "tests.fixtures.strangers.classes"
LOGGED = "train/acc, train/loss, val/acc, val/loss"
STOPPING = ("--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "val_loss")
SAVING = ("--trainer.callbacks+", "ModelCheckpoint", "--trainer.callbacks.monitor", "val_loss")
PLATEAU = (
    "--model.lr_scheduler",
    "lightning.pytorch.cli.ReduceLROnPlateau",
    "--model.lr_scheduler.monitor",
    "val_loss",
)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (STOPPING, f"EarlyStopping monitors val_loss, which is not logged; monitor one of {LOGGED}"),
        (SAVING, "ModelCheckpoint monitors val_loss"),
        (PLATEAU, "ReduceLROnPlateau monitors val_loss"),
        (("--monitor", "test/acc"), f"--monitor test/acc is not logged; monitor one of {LOGGED}"),
        ((*STOPPING[:3], "train_end/loss"), "EarlyStopping monitors train_end/loss"),
    ],
)
def test_a_module_of_litlab_refuses_a_metric_that_it_does_not_log_before_there_is_a_run(
    litlab, tmp_path, args, message
):
    outcome = litlab("fit", "digits-mlp", *args)
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "runs" / "mlflow.db").exists()


@pytest.mark.parametrize(
    "args",
    [
        (*STOPPING[:3], "val/loss", *SAVING[:3], "train/acc", "--monitor", "val/acc"),
        (*STOPPING[:3], "train_end/loss", "--data.evaluate_train", "true"),
        ("--trainer.callbacks+", "modules.probes.DeadUnits", *STOPPING[:3], "val/dead_units_1"),
        (*STOPPING, "--trainer.callbacks.strict", "false"),
        (*PLATEAU[:3], "val/loss"),
    ],
)
def test_a_metric_that_may_be_logged_is_accepted(args):
    prepare_training(parse_config("fit", ["digits-mlp", *args]))


@pytest.mark.parametrize(("callback", "source"), [(STOPPING, "EarlyStopping"), (SAVING, "ModelCheckpoint")])
def test_another_module_is_told_what_was_logged_after_the_first_validation(litlab, tables, tmp_path, callback, source):
    path = tmp_path / "it.yaml"
    path.write_text(
        f"data: {{class_path: {CLASSES}.Points}}\nmodel: {{class_path: {CLASSES}.Net}}\n"
        "trainer: {max_epochs: 3, accelerator: cpu, log_every_n_steps: 1}\n"
    )
    outcome = litlab("fit", "-c", path, *callback)
    assert outcome.code == 2
    assert f"{source} monitors val_loss, which is not logged; monitor one of" in outcome.err
    assert "val/loss" in outcome.err
    assert "Traceback" not in outcome.err
    assert "To continue" not in outcome.err
    (run,) = Store().search([Store().experiment_id("it")], "")
    assert run.status == "FAILED"
    assert run.tags["litlab.reason"].startswith(f"UserError: {source} monitors val_loss, which is not logged")


def test_the_message_names_the_option():
    with pytest.raises(UserError, match="--monitor val_acc is not logged"):
        prepare_training(parse_config("fit", ["digits-mlp", "--monitor", "val_acc"]))


def test_resume_is_not_suggested_if_a_run_failed_in_a_library_before_its_first_checkpoint(litlab, tables):
    failing = ("--trainer.callbacks+=ThroughputMonitor", "--trainer.callbacks.batch_size_fn=torch.numel")
    outcome = litlab("fit", "digits-mlp", *failing, "--trainer.log_every_n_steps=1", "--data.n_train=100")
    assert outcome.code == 1
    assert "failed." in outcome.err
    assert "To continue" not in outcome.err


def test_weights_of_a_callback_need_a_callback_before_there_is_a_run(litlab, tmp_path):
    outcome = litlab("fit", "digits-mlp", "--test_weights", "callback")
    assert outcome.code == 2
    assert "no ModelCheckpoint is among trainer.callbacks" in outcome.err
    assert not (tmp_path / "runs" / "mlflow.db").exists()


@pytest.fixture
def loops_fit(strangers, litlab, tmp_path):
    """Return a function that trains a module of loops.py for two epochs."""
    path = tmp_path / "loops.yaml"
    path.write_text("data: {class_path: loops.Data}\nmodel: {class_path: loops.Net}\ntrainer: {max_epochs: 2}\n")
    return lambda *args: litlab("fit", "-c", path, "--trainer.accelerator", "cpu", *args)


def test_a_metric_is_said_to_select_only_once_it_is_logged(loops_fit, tables):
    outcome = loops_fit(*STOPPING[:3], "val_los")
    assert outcome.code == 2
    assert "best weights are selected by" not in outcome.err
    first, second, _ = outcome.err.splitlines()
    assert (
        first == "litlab: EarlyStopping monitors val_los, but the sanity check logged val_loss; did you mean val_loss?"
    )
    assert second.startswith("litlab: EarlyStopping monitors val_los, which is not logged; monitor one of")


@pytest.mark.parametrize(
    ("args", "metric"),
    [
        ((*STOPPING[:3], "val_loss"), "val_loss, lower is better (EarlyStopping)"),
        ((*STOPPING[:3], "val_loss", "--trainer.num_sanity_val_steps=0"), "val_loss, lower is better (EarlyStopping)"),
        (("--model=loops.Plateau",), "iou, higher is better (ReduceLROnPlateau)"),
        (("--model=loops.PlateauOnTraining",), "train_loss, lower is better (ReduceLROnPlateau)"),
        (("--model=loops.OnlyScore", "--mode=max"), "quality, higher is better (logged in validation)"),
        (("--data=loops.TwoLoaders", *STOPPING[:3], "val_loss/dataloader_idx_1"), "val_loss/dataloader_idx_1, lower"),
    ],
    ids=["callback", "no sanity check", "scheduler", "training", "only one", "second loader"],
)
@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no")
def test_a_metric_that_is_logged_is_said_to_select_once(loops_fit, tables, args, metric):
    outcome = loops_fit(*args)
    assert outcome.code == 0
    assert outcome.err.count("best weights are selected by") == 1
    assert f"The best weights are selected by {metric}" in outcome.err
    assert "sanity check" not in outcome.err


def test_a_validation_that_logs_nothing_is_not_said_to_be_missing(loops_fit, tables):
    outcome = loops_fit("--model=loops.LogsNothing")
    assert outcome.code == 0
    assert "The last weights are kept: the validation logged no metrics" in outcome.err

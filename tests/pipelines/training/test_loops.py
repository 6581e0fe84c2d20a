"""Whatever a plain Trainer runs: with or without validation and test, any metric, any loaders, any number of steps."""

import pytest
from mlflow import MlflowClient

from pipelines.runtime.errors import UserError
from pipelines.training.failures import RunFailedError
from pipelines.training.fit import fit

pytestmark = [  # Lightning's advice to authors
    pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no"),
    pytest.mark.filterwarnings("ignore:You requested to overfit but enabled train dataloader shuffling"),
]
CONFIG = """
data: {class_path: loops.Data}
model: {class_path: loops.Net}
trainer: {max_epochs: 2, accelerator: cpu}
"""


@pytest.fixture
def train(tmp_path, strangers, monkeypatch):
    """Return a function that trains a configuration with overrides."""
    path = tmp_path / "loops.yaml"
    path.write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/runs.db"
    return lambda *args: fit(path, overrides=args, tracking_uri=uri)


@pytest.fixture
def loops(strangers):
    import loops

    loops.used.clear()
    loops.calls.clear()
    return loops


CALLBACK = [
    "--trainer.callbacks+=ModelCheckpoint",
    "--trainer.callbacks.monitor=val/score",
    "--trainer.callbacks.mode=max",
]


@pytest.mark.parametrize(
    ("args", "monitor", "epoch"),
    [
        ([], "val_loss", 1),
        (["--model", "loops.Worsens"], "val/loss", 0),
        (["--model", "loops.Worsens", "--monitor", "val/score"], "val/score", 1),
        (["--model", "loops.Worsens", "--monitor", "val/score", "--mode", "min"], "val/score", 0),
        (["--model", "loops.Worsens", *CALLBACK], "val/score", 1),
        (["--model", "loops.OnlyScore"], "quality", 1),
        (["--model", "loops.OnlyMetric"], "quality", 0),
        (["--model", "loops.ManyMetrics"], None, 1),
        (["--model", "loops.Plateau"], "iou", 1),
        (["--model", "loops.NoValidation"], None, 1),
        (["--trainer.limit_val_batches", "0"], None, 1),
        (["--trainer.check_val_every_n_epoch", "5"], None, 1),
        (["--data", "loops.TwoLoaders"], "val_loss/dataloader_idx_0", 1),
        (["--model", "loops.PerStepAndEpoch"], "iou", 1),
        (["--model", "loops.PerStepAndEpoch", "--data", "loops.TwoLoaders"], "iou/dataloader_idx_0", 1),
        (["--model", "loops.LogsTraining", "--monitor", "train_loss"], "train_loss", 1),
    ],
)
def test_the_weights_are_selected_by_what_the_user_named_or_logged(train, args, monitor, epoch):
    result = train(*args)
    assert (result.monitor, result.selected_epoch) == (monitor, epoch)
    assert any(key.startswith("test_loss") for key in result.metrics)


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--model", "loops.NoTest"], "NoTest has no test_step"),
        (["--data", "loops.NoTestData"], "NoTestData has no test_dataloader"),
        (["--trainer.limit_test_batches", "0"], "trainer.limit_test_batches is 0"),
    ],
)
def test_without_a_test_the_run_finishes_and_says_so(train, litlab, tmp_path, args, reason):
    outcome = litlab("fit", tmp_path / "loops.yaml", *args, "--tracking_uri", f"sqlite:///{tmp_path}/runs.db")
    assert outcome.code == 0
    assert f"No test: {reason}" in outcome.err


@pytest.mark.parametrize(
    "args",
    [
        ["--trainer.max_epochs", "-1", "--trainer.max_steps", "9", "--trainer.val_check_interval", "4"],
        ["--trainer.max_epochs", "-1", "--trainer.max_time", "00:00:00:01"],
        ["--trainer.val_check_interval", "0.5"],
        ["--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", "5"],
        ["--trainer.overfit_batches", "1"],
        ["--trainer.accumulate_grad_batches", "4"],
        ["--trainer.limit_train_batches", "0.5", "--trainer.limit_test_batches", "1"],
        ["--trainer.reload_dataloaders_every_n_epochs", "1"],
    ],
    ids=["steps", "time", "twice an epoch", "across epochs", "overfit", "accumulate", "limits", "reload"],
)
def test_every_loop_of_the_trainer_runs(train, args):
    result = train(*args, "--model", "loops.Net")
    assert result.monitor == "val_loss"
    assert "test_loss" in result.metrics


def test_a_metric_that_is_not_logged_is_refused_after_the_first_validation(train):
    with pytest.raises(RunFailedError, match=r"the validation logs val_loss; did you mean val_loss[?]") as caught:
        train("--monitor", "val_los", "--trainer.max_epochs", "1000")
    assert caught.value.refused


def test_a_metric_of_the_training_that_is_not_logged_is_refused_after_the_first_epoch(train):
    with pytest.raises(RunFailedError, match=r"--monitor train_acc: the training logs train_loss, val_loss$"):
        train("--model", "loops.LogsTraining", "--monitor", "train_acc")


def test_a_direction_that_no_name_tells_is_said_to_be_assumed(train, caplog):
    train("--model", "loops.OnlyScore")
    assert "The name of quality does not tell which values are better: higher ones are assumed" in caplog.text
    caplog.clear()
    train("--model", "loops.OnlyScore", "--mode", "max")
    train("--model", "loops.Net")
    assert "does not tell" not in caplog.text


@pytest.mark.parametrize("args", [[], ["--trainer.max_epochs", "-1", "--trainer.max_steps", "2"]])
def test_a_checkpoint_that_leaves_nothing_to_train_is_refused_before_there_is_a_run(train, litlab, tmp_path, args):
    uri = f"sqlite:///{tmp_path}/runs.db"
    finished = train("--model", "loops.Net")
    outcome = litlab("fit", "--ckpt_path", finished.run_id, *args, "--tracking_uri", uri)
    assert outcome.code == 2
    assert "give a larger --trainer.max_" in outcome.err
    client = MlflowClient(uri)
    assert len(client.search_runs([item.experiment_id for item in client.search_experiments()])) == 1


@pytest.mark.parametrize(
    ("verb", "model", "reason"),
    [
        ("test", "NoTest", "NoTest has no test_step"),
        ("validate", "NoValidation", "NoValidation has no validation_step"),
    ],
)
def test_a_run_without_a_step_cannot_be_evaluated_and_says_so(train, litlab, tmp_path, verb, model, reason):
    run_id = train("--model", f"loops.{model}").run_id
    outcome = litlab(verb, run_id, "--tracking_uri", f"sqlite:///{tmp_path}/runs.db")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == f"litlab: {reason}: there is nothing to evaluate"


def test_the_user_says_which_weights_are_tested(train):
    args = ["--model", "loops.Worsens", "--monitor", "val/loss", *CALLBACK]
    results = {which: train(*args, "--test_weights", which) for which in ("best", "last", "callback")}
    assert {which: result.selected_epoch for which, result in results.items()} == {"best": 0, "last": 1, "callback": 1}
    assert results["last"].metrics["test_loss"] == results["callback"].metrics["test_loss"]
    assert results["best"].metrics["test_loss"] != results["last"].metrics["test_loss"]
    with pytest.raises(UserError, match="no ModelCheckpoint is among"):
        train("--test_weights", "callback")


def test_nothing_to_train_is_refused(train):
    with pytest.raises(UserError, match="limit_train_batches must not be 0"):
        train("--trainer.limit_train_batches", "0")


@pytest.mark.parametrize("data", ["Split", "SplitInLoaders"])
def test_there_is_one_split_in_a_run_and_in_later_commands(train, loops, litlab, tmp_path, data):
    result = train("--data", f"loops.{data}")
    assert [there for _, there in loops.calls] == [True, True]  # for the training and for the test
    assert sorted(map(len, loops.used.values())) == [32, 32, 64]
    assert not loops.used["train"] & loops.used["test"]
    assert not loops.used["train"] & loops.used["val"]
    before = {name: set(indices) for name, indices in loops.used.items()}
    for verb in ("validate", "test"):
        outcome = litlab(verb, result.run_id, "--tracking_uri", f"sqlite:///{tmp_path}/runs.db")
        assert outcome.code == 0, outcome.err
    assert loops.used == before


def test_the_test_set_is_not_set_up_before_the_training(train, loops):
    train("--data", "loops.OneAtATime", "--model", "loops.NoValidation")
    assert len(loops.used["train"]) == 96


def test_a_training_whose_test_fails_is_finished_by_resume(train, loops, litlab, tmp_path, monkeypatch):
    with pytest.raises(RunFailedError, match="no test today") as caught:
        train("--model", "loops.FailsInTest")
    monkeypatch.setattr(loops.FailsInTest, "test_step", loops.Net.test_step)
    outcome = litlab("resume", caught.value.run_id, "--tracking_uri", f"sqlite:///{tmp_path}/runs.db")
    assert outcome.code == 0, outcome.err
    assert "after epoch 1" in outcome.err


def test_a_finished_run_is_continued_by_a_new_one_that_names_it(train, litlab, tmp_path):
    uri = f"sqlite:///{tmp_path}/runs.db"
    first = train()
    again = fit(None, overrides=["--ckpt_path", first.run_id, "--trainer.max_epochs", "4"], tracking_uri=uri)
    assert again.run_id != first.run_id
    assert (again.last_epoch, again.selected_epoch) == (3, 3)
    whole = train("--trainer.max_epochs", "4")
    assert again.metrics["val_loss"] == whole.metrics["val_loss"]


def test_weights_start_a_new_training(train):
    first = train()
    warm, cold = (train(*args, "--trainer.max_epochs", "1") for args in (["--weights", first.run_id], []))
    assert warm.metrics["val_loss"] < cold.metrics["val_loss"]
    with pytest.raises(UserError, match="other weights than"):
        train("--weights", str(first.checkpoint), "--model", "steps.Net")


def test_a_run_is_tested_with_the_weights_that_another_metric_selects(train, litlab, tmp_path):
    result = train("--model", "loops.Worsens", "--trainer.max_epochs", "3")
    assert result.selected_epoch == 0
    uri = f"sqlite:///{tmp_path}/runs.db"
    outcome = litlab("test", result.run_id, "--monitor", "val/score", "--tracking_uri", uri)
    assert outcome.code == 0, outcome.err
    assert "2 is the best by val/score: last.ckpt" in outcome.err
    outcome = litlab("test", result.run_id, "--monitor", "val/iou", "--tracking_uri", uri)
    assert outcome.code == 2
    assert "there is" in outcome.err
    assert "val/score" in outcome.err


def test_a_training_whose_test_failed_is_finished_by_another_metric(train, loops, litlab, tmp_path, monkeypatch):
    monkeypatch.setattr(loops.Worsens, "test_step", loops.FailsInTest.test_step)
    with pytest.raises(RunFailedError) as caught:
        train("--model", "loops.Worsens")
    monkeypatch.setattr(loops.Worsens, "test_step", loops.Net.test_step)
    uri = f"sqlite:///{tmp_path}/runs.db"
    outcome = litlab("resume", caught.value.run_id, "--monitor", "val/score", "--tracking_uri", uri)
    assert outcome.code == 0, outcome.err
    assert "epoch 1 of 0 to 1, by val/score" in outcome.out


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("Overlap", "10 of 30 validation examples are training examples"),
        ("Folds", "10 of 30 validation examples are training examples"),
        ("Nested", "20 of 30 test examples are training examples"),
    ],
)
def test_training_examples_in_another_set_are_refused(train, data, says):
    with pytest.raises(RunFailedError, match=says) as caught:
        train("--data", f"leaks.{data}")
    assert caught.value.refused
    assert train("--data", f"leaks.{data}", "--leak_check", "false").metrics["test_loss"] > 0


def test_equal_content_is_a_warning_with_examples(train, litlab, tmp_path):
    uri = f"sqlite:///{tmp_path}/runs.db"
    outcome = litlab("fit", tmp_path / "loops.yaml", "--data", "leaks.EqualContent", "--tracking_uri", uri)
    assert outcome.code == 0
    assert "2 of 32 have the content of a training example: 3 (training 7), 4 (training 8)" in outcome.err
    (run,) = MlflowClient(uri).search_runs([str(number) for number in range(3)])
    assert run.data.tags["litlab.leak_check.validation"].startswith("2 of 32 have")
    assert run.data.tags["litlab.leak_check.test"] == "none of 32 equals a training example"


@pytest.mark.parametrize("data", ["Samplers", "BatchSamplers", "Gradients", "Repeats", "TrainAgain"])
def test_disjoint_samplers_repeated_points_and_a_second_look_at_the_training_set_are_no_leaks(
    train, litlab, tmp_path, data
):
    uri = f"sqlite:///{tmp_path}/runs.db"
    outcome = litlab("fit", tmp_path / "loops.yaml", "--data", f"leaks.{data}", "--tracking_uri", uri)
    assert outcome.code == 0, outcome.err
    assert "training example" not in outcome.err

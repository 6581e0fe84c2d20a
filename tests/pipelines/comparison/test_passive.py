"""Runs that differ in what changes no result are one row; other callbacks are shown by what differs."""

import json

import pytest

from pipelines.tracking.passive import without_passive

SHORT = ("--data.n_train", "100", "--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false")
STOPPING = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor", "val/loss")
PASSIVE = ("--trainer.profiler", "simple", "--trainer.log_every_n_steps", "3", "--trainer.enable_model_summary", "true")
REPORTING = ("--trainer.callbacks+=LearningRateMonitor", "--trainer.callbacks+=ModelCheckpoint")


@pytest.mark.slow
def test_what_changes_no_result_makes_no_row_and_what_stops_a_training_does(litlab, tables):
    same = [(), (*PASSIVE, *REPORTING, "--seed_everything", "1")]
    for arguments in [*same, STOPPING, (*STOPPING, "--trainer.callbacks.patience", "9", REPORTING[0])]:
        assert litlab("fit", "digits-mlp", *SHORT, *arguments).code == 0
    rows = json.loads(litlab("compare", "digits-mlp", "--format", "json").out)
    assert sorted(row["n"] for row in rows) == [1, 1, 2]
    table = litlab("compare", "digits-mlp").out
    assert "EarlyStopping(patience=3)" in table
    assert "EarlyStopping(patience=9)" in table
    assert "class_path" not in table


@pytest.mark.parametrize(
    ("callbacks", "kept"),
    [
        ([{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}], None),
        ([{"class_path": "mine.ModelCheckpoint"}], ["mine.ModelCheckpoint"]),
        ([{"class_path": "LearningRateMonitor"}, {"class_path": "mine.Ema"}], ["mine.Ema"]),
        (
            [{"class_path": "lightning.pytorch.callbacks.WeightAveraging"}],
            ["lightning.pytorch.callbacks.WeightAveraging"],
        ),
    ],
)
def test_only_lightnings_own_passive_callbacks_are_left_out(callbacks, kept):
    left = without_passive({"model.lr": "0.1", "seed": "3", "trainer.callbacks": json.dumps(callbacks)})
    assert left["model.lr"] == "0.1"
    assert "seed" not in left
    names = [one["class_path"] for one in json.loads(left["trainer.callbacks"])] if kept else None
    assert names == kept


@pytest.mark.parametrize("text", ["null", "[1, 2]", '[{"class_path"', '{"class_path": "a.B"}'])
def test_a_text_that_is_no_list_of_classes_stays_as_it_is(text):
    assert without_passive({"trainer.callbacks": text}) == {"trainer.callbacks": text}

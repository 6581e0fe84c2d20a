"""The lines of epochs: what fits a terminal, and how many there are."""

import pytest

from pipelines.training import progress_bar
from pipelines.training.progress_bar import fit_line

PARTS = ["train/acc 0.8884", "train/loss 0.3532", "val/acc 0.9300", "val/loss 0.2108", "(0.2 s)"]
SHORT = ("--data.n_train", "100", "--data.batch_size", "50", "--trainer.limit_val_batches", "1")


@pytest.mark.parametrize(
    ("width", "kept"),
    [
        (None, PARTS),
        (120, PARTS),
        (80, PARTS[:4]),
        (60, [PARTS[0], PARTS[2], PARTS[3]]),
        (50, PARTS[2:4]),
        (30, [PARTS[2]]),
        (5, [PARTS[2]]),
    ],
)
def test_a_line_keeps_whole_values_and_those_on_validation_data_longest(width, kept):
    assert fit_line("epoch   0", PARTS, width) == "  ".join(["epoch   0", *kept])


def test_many_epochs_have_few_lines_and_the_last_one_has_one(litlab, tables, monkeypatch):
    monkeypatch.setattr(progress_bar, "ALL_LINES", 3)
    monkeypatch.setattr(progress_bar, "LINE_INTERVAL_S", 1000.0)
    monkeypatch.setenv("COLUMNS", "80")
    outcome = litlab("fit", "digits-mlp", *SHORT, "--trainer.max_epochs", "7")
    lines = [line for line in outcome.out.splitlines() if line.startswith("epoch ")]
    assert [int(line.split()[1]) for line in lines] == [0, 1, 2, 6]
    assert max(map(len, lines)) <= 80
    assert all("val/loss" in line for line in lines)

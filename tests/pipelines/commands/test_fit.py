"""What `litlab fit` prints at the end: the metrics of the selected weights, and which these are."""

import pytest

pytestmark = [
    pytest.mark.usefixtures("tables"),
    pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no"),  # Lightning's advice to authors
]


@pytest.fixture
def fit(strangers, litlab, tmp_path):
    """Return a function that trains a module of loops.py, and returns the lines of its summary."""
    path = tmp_path / "it.yaml"
    path.write_text("data: {class_path: loops.Data}\nmodel: {class_path: loops.Net}\ntrainer: {accelerator: cpu}\n")

    def run(*args):
        outcome = litlab("fit", "-c", path, "--trainer.enable_progress_bar=false", *args)
        assert outcome.code == 0, outcome.err
        return [line.rstrip() for line in outcome.out.splitlines()]

    return run


def test_a_metric_has_one_column_wherever_its_name_has_the_split(fit):
    lines = fit("--model=loops.OnTest", "--trainer.max_epochs=1")
    assert lines[1].split() == ["loss"]
    assert [line.split()[0] for line in lines[2:4]] == ["val", "test"]


def test_metrics_of_several_loaders_are_in_their_order(fit):
    lines = fit("--data=loops.TwoLoaders", "--trainer.max_epochs=1")
    assert lines[1].split() == ["loss/dataloader_idx_0", "loss/dataloader_idx_1"]


def test_without_metrics_there_is_no_table(fit):
    lines = fit("--model=loops.LogsNothing", "--trainer.max_epochs=1", "--trainer.limit_test_batches=0")
    assert lines[0] == "it, seed 0: no metrics"
    assert lines[1].startswith("selected")


EVERY_TWO = ("--trainer.val_check_interval=2", "--trainer.check_val_every_n_epoch=null")


@pytest.mark.parametrize(
    ("args", "selected"),
    [
        (("--trainer.max_epochs=2",), "epoch 0 of 0 to 1, by val/loss"),
        (("--trainer.max_steps=4", *EVERY_TWO), "step 2 of 4, by val/loss"),
        (("--trainer.max_steps=9", *EVERY_TWO, "--monitor=val/score"), "step 8 of 9, by val/score"),
        (("--trainer.max_epochs=2", "--trainer.val_check_interval=0.5"), "step 3 of 12, by val/loss"),
        (("--trainer.max_epochs=2", "--trainer.val_check_interval=0.5", "--test_weights=last"), "step 12 of 12"),
    ],
    ids=["epochs", "first", "later", "twice an epoch", "last"],
)
def test_the_selected_weights_have_a_step_if_validations_are_within_epochs(fit, args, selected):
    (line,) = [line for line in fit("--model=loops.Worsens", *args) if line.startswith("selected")]
    assert line.split(maxsplit=1)[1] == selected

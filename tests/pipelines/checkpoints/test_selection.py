"""Which validation is the best: by the monitored metric, of equal ones by the validation loss, else the first."""

import math

import pytest

from pipelines.checkpoints.selection import Best, Selection


def select(validations, metric="val/acc", **state):
    """Return the index of the validation that is selected, and the selection."""
    selection = Selection(metric)
    if state:
        selection.load_state({"best_epoch": None, **state})
    for epoch, logged in enumerate(validations):
        selection.after_validation(dict.fromkeys(logged))
        score, tie = selection.monitor.score(logged[metric]), selection.tie_score(logged)
        if selection.is_better(score, tie):
            selection.best = Best(epoch, score, tie=tie)
    return selection.best.epoch, selection


@pytest.mark.parametrize("name", ["val/loss", "val_loss", "val/loss/dataloader_idx_0"])
def test_of_equal_validations_the_one_with_the_lowest_loss_is_selected(name):
    values = [(0.8, 0.1), (0.9, 0.5), (0.9, 0.3), (0.9, 0.4), (0.7, 0.0)]
    assert select([{"val/acc": acc, name: loss} for acc, loss in values])[0] == 2


@pytest.mark.parametrize(
    "losses", [(0.5, 0.5, 0.5), (0.4, math.nan, 0.5), (None, None, None)], ids=["equal", "no number", "not logged"]
)
def test_if_the_loss_does_not_decide_the_first_of_equal_validations_is_selected(losses):
    logged = [{"val/acc": 0.9} | ({} if loss is None else {"val/loss": loss}) for loss in losses]
    assert select(logged)[0] == 0


def test_a_loss_that_selects_breaks_no_ties():
    assert select([{"val/loss": 0.5, "val_loss": loss} for loss in (0.9, 0.1)], "val/loss")[0] == 0


def test_a_checkpoint_keeps_the_loss_of_the_best_validation():
    _, before = select([{"val/acc": 0.9, "val/loss": 0.3}])
    assert select([{"val/acc": 0.9, "val/loss": 0.4}, {"val/acc": 0.9, "val/loss": 0.2}], **before.state())[0] == 1
    after = Selection("val/acc")
    after.load_state(before.state())
    assert after.best == before.best
    assert not after.is_better(0.9, after.tie_score({"val/loss": 0.35}))


def test_a_run_of_an_earlier_version_keeps_selecting_the_first_of_equal_validations():
    _, now = select([{"val/acc": 0.9, "val/loss": 0.3}])
    earlier = {key: value for key, value in now.state().items() if key not in ("best_tie", "breaks_ties")}
    selection = Selection("val/acc")
    selection.load_state(earlier)
    assert selection.tie_score({"val/loss": 0.1}) is None
    assert not selection.is_better(0.9, selection.tie_score({"val/loss": 0.1}))
    assert selection.state()["breaks_ties"] is False, "also after it has resumed twice"

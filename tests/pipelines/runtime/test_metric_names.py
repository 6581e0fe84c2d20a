"""The direction of a metric follows from its name."""

import pytest

from pipelines.runtime.metric_names import mode_of


@pytest.mark.parametrize(
    "name",
    [
        "val/loss",
        "val_loss",
        "test/mape",
        "ValLoss",
        "xent_loss",
        "valid_rmse",
        "val/loss/dataloader_idx_0",
        "val/loss_y0",
        "fit_seconds",
        "parameters",
        "val_perplexity",
        "test/changed_by_shift_1",
        "val/dead_units",
        "mean_squared_error",
        "val_WER",
        "reconstruction-error",
    ],
)
def test_lower_is_better_for_losses_errors_and_distances(name):
    assert mode_of(name) == "min"


@pytest.mark.parametrize(
    "name",
    [
        "val/acc",
        "val_acc",
        "test/f1",
        "val_iou",
        "val_auroc",
        "test/knn_acc",
        "val/mAP",
        "val_dice",
        "score",
        "closeness",
    ],
)
def test_higher_is_better_for_everything_else(name):
    assert mode_of(name) == "max"

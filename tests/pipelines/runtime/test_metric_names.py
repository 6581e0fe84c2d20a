"""The direction and the split of a metric follow from its name."""

import math

import pytest

from pipelines.runtime.metric_names import (
    bounds_of,
    by_loader,
    find_metric,
    labels_of,
    list_metrics,
    mode_of,
    nearest_metric,
    of_split,
    shown_in_epoch,
    split_of,
    tells_mode,
    without_split,
)


@pytest.mark.parametrize(
    "name",
    [
        "val/loss",
        "val_loss",
        "test/mape",
        "ValLoss",
        "valMAE",
        "testRMSE",
        "trainNLL",
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


@pytest.mark.parametrize(
    ("name", "split", "label"),
    [
        ("val/loss", "val", "loss"),
        ("val_loss", "val", "loss"),
        ("valLoss", "val", "loss"),
        ("Valid Loss", "val", "Loss"),
        ("loss/val", "val", "loss"),
        ("avg_val_loss", "val", "avg_loss"),
        ("rmse_on_test", "test", "rmse"),
        ("rmse_on_test/dataloader_idx_1", "test", "rmse/dataloader_idx_1"),
        ("loss_val/dataloader_idx_0", "val", "loss/dataloader_idx_0"),
        ("test/dataloader_idx_0", "test", "test/dataloader_idx_0"),
        ("Accuracy of the validation set", "val", "Accuracy"),
        ("loss.train.data", "train", "loss"),
        ("val/data_loss", "val", "data_loss"),
        ("val_in_domain_acc", "val", "in_domain_acc"),
        ("precision_val", "val", "precision"),
        ("eval_loss", "val", "loss"),
        ("train_loss_epoch", "train", "loss"),
        ("train/loss_epoch", "train", "loss"),
        ("train_end/acc", "train_end", "acc"),
        ("test_iou/dataloader_idx_0", "test", "iou/dataloader_idx_0"),
        ("testAcc", "test", "acc"),
        ("test/changed_by_shift_1", "test", "changed_by_shift_1"),
        ("test", "test", "test"),
        ("acc", None, "acc"),
        ("latest_loss", None, "latest_loss"),
        ("retrained", None, "retrained"),
        ("contest", None, "contest"),
    ],
)
def test_the_split_of_a_metric_is_the_first_word_that_names_one(name, split, label):
    assert (split_of(name), without_split(name)) == (split, label)


def test_metrics_of_a_split_are_labelled_without_it_unless_two_would_be_alike():
    assert labels_of(["val/loss", "val_loss", "val_acc"]) == {
        "val/loss": "val/loss",
        "val_loss": "val_loss",
        "val_acc": "acc",
    }
    assert of_split({"val/acc": 1, "test/acc": 2, "iou": 3, "train_end/acc": 4}, "test", ["iou"]) == {
        "acc": 2,
        "iou": 3,
    }


def test_a_metric_of_several_data_loaders_is_that_of_the_first():
    assert find_metric("val_loss", ["val_loss", "val_loss/dataloader_idx_0"]) == "val_loss"
    assert (
        find_metric("val_loss", ["val_loss/dataloader_idx_1", "val_loss/dataloader_idx_0"])
        == "val_loss/dataloader_idx_0"
    )
    assert find_metric("val_loss", ["val_acc"]) is None


def test_metrics_of_several_loaders_are_in_their_order_and_the_others_stay_where_they_are():
    names = ["total/dataloader_idx_10", "acc", "total/dataloader_idx_2", "f1/dataloader_idx_1", "f1/dataloader_idx_0"]
    assert by_loader(names) == [names[2], names[0], names[1], names[4], names[3]]
    assert by_loader(["val/loss", "val/acc"]) == ["val/loss", "val/acc"]
    assert shown_in_epoch(["a/dataloader_idx_10", "a/dataloader_idx_9"]) == [
        "a/dataloader_idx_9",
        "a/dataloader_idx_10",
    ]


def test_an_epoch_shows_each_metric_once():
    logged = ["b/loss", "b/loss_step", "b/loss_epoch", "a_step", "c_step/dataloader_idx_0", "c/dataloader_idx_0"]
    assert shown_in_epoch(logged) == ["a_step", "b/loss", "c/dataloader_idx_0"]


@pytest.mark.parametrize(
    "name", ["val_acc", "val/loss", "test_F1", "valid_iou", "val/AUROC", "contrastive_val", "val_psnr"]
)
def test_usual_names_tell_which_values_are_better(name):
    assert tells_mode(name)


@pytest.mark.parametrize("name", ["val/depth", "val_metric", "quality", "energy_val"])
def test_other_names_do_not_tell_which_values_are_better(name):
    assert not tells_mode(name)


@pytest.mark.parametrize(
    ("metric", "values", "bounds"),
    [
        ("test/acc", (0.9, 1.0), (0, 1)),
        ("selected/val/f1", (0.0,), (0, 1)),
        ("test_accuracy", (93.5,), (0, math.inf)),  # in per cent
        ("fit_seconds", (2.0,), (0, math.inf)),
        ("test/rmse", (0.3,), (0, math.inf)),
        ("val/loss", (0.3,), (-math.inf, math.inf)),
        ("test/acc", (-0.1,), (-math.inf, math.inf)),  # whatever that is
    ],
    ids=str,
)
def test_the_bounds_of_a_metric_follow_from_its_name_and_its_values(metric, values, bounds):
    assert bounds_of(metric, values) == bounds


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("val/acc", "val/accuracy"),
        ("val/accuracy", "val/accuracy"),
        ("valid_acc", "val/accuracy"),
        ("val_los", "val/loss"),
        ("accuracy", "val/accuracy"),
        ("val/f1_macro", "val/f1"),
        ("val/loss/dataloader_idx_0", "val/loss"),
        ("val/auroc", None),
        ("test/acc", None),
        ("val/mse", None),
    ],
)
def test_the_nearest_metric_measures_the_same_on_the_same_split(name, nearest):
    assert nearest_metric(name, ["train/accuracy", "val/accuracy", "val/f1", "val/loss"]) == nearest


def test_metrics_are_listed_with_the_one_that_is_meant():
    assert list_metrics(["val/loss", "val/accuracy"], "val/acc") == "val/accuracy, val/loss; did you mean val/accuracy?"
    assert list_metrics([], "val/acc") == "no metrics"

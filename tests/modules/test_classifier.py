"""What a classifier logs under a bare Trainer, against the same figures computed by hand."""

import csv
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from modules.convnet import ConvNet
from modules.linear import LinearClassifier
from modules.mlp import MLP

SHAPE = (1, 28, 28)
STANDING_STILL = partial(torch.optim.SGD, lr=0.0)
"""Weights that do not change make the training figures those of the model."""


def _figures(metrics, split: str) -> tuple[float, float]:
    return float(metrics[f"{split}/loss"]), float(metrics[f"{split}/acc"])


@pytest.mark.parametrize(
    ("build", "options"),
    [(LinearClassifier, {}), (MLP, {"dropout": 0.5}), (ConvNet, {"channels": (2, 3), "batch_norm": True})],
)
def test_validation_and_test_figures_are_those_of_the_model_on_the_whole_set(
    build, options, digits, make_trainer, by_hand, monkeypatch
):
    model = build(SHAPE, 10, **options)
    monkeypatch.setattr("datamodules.base.EVAL_BATCH_SIZE", 50)  # 5 and 8 batches, both with a ragged end
    trainer = make_trainer(max_epochs=2)
    trainer.fit(model, digits)
    assert _figures(trainer.callback_metrics, "val") == pytest.approx(by_hand(model, digits.val_set), rel=1e-5)
    (tested,) = trainer.test(model, digits, verbose=False)
    assert _figures(tested, "test") == pytest.approx(by_hand(model, digits.test_set), rel=1e-5)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_loss_that_is_logged_is_the_loss_that_is_trained_on(split, digits, make_trainer):
    model = LinearClassifier(SHAPE, 10, loss="quadratic", optimizer=STANDING_STILL)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(model, digits)
    part = getattr(digits, f"{split}_set")
    with torch.no_grad():
        probabilities = model(digits.normalize(part.images_NCHW)).softmax(1)
    expected = (probabilities - torch.eye(10)[part.labels_N]).square().sum(1).mean() / 2
    torch.testing.assert_close(trainer.callback_metrics[f"{split}/loss"], expected)


def test_every_one_of_the_360_test_scans_counts_once(digits, make_trainer, by_hand, monkeypatch):
    monkeypatch.setattr("datamodules.base.EVAL_BATCH_SIZE", 7)  # 51 batches and 3 scans: two chunks, a ragged end
    model = LinearClassifier(SHAPE, 10)
    (tested,) = make_trainer().test(model, digits, verbose=False)
    correct = by_hand(model, digits.test_set)[1] * 360
    assert tested["test/acc"] * 360 == pytest.approx(correct, abs=1e-3)
    assert model.test_metrics.metrics["loss"].counts == []  # and nothing is left to count again


def test_training_figures_average_over_the_examples_of_the_epoch(digits, make_trainer, by_hand):
    model, trainer = LinearClassifier(SHAPE, 10, optimizer=STANDING_STILL), make_trainer(max_epochs=2)
    trainer.fit(model, digits)
    assert _figures(trainer.callback_metrics, "train") == pytest.approx(by_hand(model, digits.train_set), rel=1e-5)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_evaluation_step_hands_the_logits_and_labels_of_its_batch_to_callbacks(split, digits):
    model = LinearClassifier(SHAPE, 10)
    images, labels = digits.on_after_batch_transfer(next(iter(digits.val_dataloader())), 0)
    outputs = getattr(model, f"{split}_step")((images, labels), 0)
    assert torch.equal(outputs["logits"], model(images))
    assert torch.equal(outputs["labels"], labels)


def test_each_figure_is_logged_once_an_epoch_by_its_name(digits, make_trainer, tmp_path):
    model = LinearClassifier(SHAPE, 10)
    trainer = make_trainer(max_epochs=3, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    trainer.fit(model, digits)
    trainer.test(model, digits, verbose=False)
    with Path(trainer.log_dir, "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    counts = Counter(name for row in rows for name, value in row.items() if value and name not in ("epoch", "step"))
    names = dict.fromkeys(["train/loss", "train/acc", "val/loss", "val/acc"], 3)
    assert counts == {**names, "test/loss": 1, "test/acc": 1}


class _Interrupt(Callback):
    """Stops the third step of a stage by force, as Ctrl-C or a full disk would."""

    def _stop(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0) -> None:
        if batch_idx == 2:
            raise InterruptedError

    on_train_batch_start = on_validation_batch_start = on_test_batch_start = _stop


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_interrupted_epoch_leaves_nothing_behind(split, digits, make_trainer, by_hand, monkeypatch):
    monkeypatch.setattr("datamodules.base.EVAL_BATCH_SIZE", 50)
    model = LinearClassifier(SHAPE, 10, optimizer=STANDING_STILL)
    interrupted, again = make_trainer(max_epochs=1, callbacks=[_Interrupt()]), make_trainer(max_epochs=1)
    run = {"train": "fit", "val": "validate"}[split]
    with pytest.raises(InterruptedError):
        getattr(interrupted, run)(model, datamodule=digits)
    getattr(again, run)(model, datamodule=digits)
    expected = by_hand(model, getattr(digits, f"{split}_set"))
    assert _figures(again.callback_metrics, split) == pytest.approx(expected, rel=1e-5)


def test_an_interrupted_test_leaves_nothing_behind(digits, make_trainer, by_hand, monkeypatch):
    monkeypatch.setattr("datamodules.base.EVAL_BATCH_SIZE", 50)
    model = LinearClassifier(SHAPE, 10)
    with pytest.raises(InterruptedError):
        make_trainer(callbacks=[_Interrupt()]).test(model, digits, verbose=False)
    (tested,) = make_trainer().test(model, digits, verbose=False)
    assert _figures(tested, "test") == pytest.approx(by_hand(model, digits.test_set), rel=1e-5)


def test_a_few_epochs_on_real_digits_learn(digits, make_trainer):
    torch.manual_seed(0)
    trainer = make_trainer(max_epochs=5)
    trainer.fit(MLP(SHAPE, 10, hidden=(64,)), digits)
    assert trainer.callback_metrics["val/acc"] > 0.8

"""Metrics that a classifier logs under a plain Trainer, compared with independently computed ones."""

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
NO_LEARNING = partial(torch.optim.SGD, lr=0.0)
"""With constant weights, training metrics equal those of the final model."""


def _logged(metrics, split: str) -> tuple[float, float]:
    return float(metrics[f"{split}/loss"]), float(metrics[f"{split}/acc"])


@pytest.mark.parametrize(
    ("build", "options"),
    [(LinearClassifier, {}), (MLP, {"dropout": 0.5}), (ConvNet, {"channels": (2, 3), "batch_norm": True})],
)
def test_validation_and_test_metrics_equal_metrics_on_the_whole_set(
    build, options, digits, make_trainer, reference_metrics, monkeypatch
):
    model = build(SHAPE, 10, **options)
    monkeypatch.setattr("datamodules.in_memory.EVAL_BATCH_SIZE", 50)  # 5 and 8 batches, the last one smaller
    trainer = make_trainer(max_epochs=2)
    trainer.fit(model, digits)
    assert _logged(trainer.callback_metrics, "val") == pytest.approx(reference_metrics(model, digits.val_set), rel=1e-5)
    (tested,) = trainer.test(model, digits, verbose=False)
    assert _logged(tested, "test") == pytest.approx(reference_metrics(model, digits.test_set), rel=1e-5)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_logged_loss_is_the_training_loss(split, digits, make_trainer):
    model = LinearClassifier(SHAPE, 10, loss="quadratic", optimizer=NO_LEARNING)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(model, digits)
    dataset = getattr(digits, f"{split}_set")
    with torch.no_grad():
        probabilities = model(digits.normalize(dataset.inputs)).softmax(1)
    expected = (probabilities - torch.eye(10)[dataset.targets]).square().sum(1).mean() / 2
    torch.testing.assert_close(trainer.callback_metrics[f"{split}/loss"], expected)


def test_each_of_the_360_test_images_counts_once(digits, make_trainer, reference_metrics, monkeypatch):
    monkeypatch.setattr("datamodules.in_memory.EVAL_BATCH_SIZE", 7)  # 51 batches and 3 images: two metric updates
    model = LinearClassifier(SHAPE, 10)
    (tested,) = make_trainer().test(model, digits, verbose=False)
    correct = reference_metrics(model, digits.test_set)[1] * 360
    assert tested["test/acc"] * 360 == pytest.approx(correct, abs=1e-3)
    assert model.test_metrics.metrics["loss"].counts == []  # the state was reset


def test_training_metrics_are_averages_over_the_examples_of_the_epoch(digits, make_trainer, reference_metrics):
    model, trainer = LinearClassifier(SHAPE, 10, optimizer=NO_LEARNING), make_trainer(max_epochs=2)
    trainer.fit(model, digits)
    assert _logged(trainer.callback_metrics, "train") == pytest.approx(
        reference_metrics(model, digits.train_set), rel=1e-5
    )


@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_evaluation_step_returns_the_logits_and_labels_of_its_batch(split, digits):
    model = LinearClassifier(SHAPE, 10)
    images, labels = digits.on_after_batch_transfer(next(iter(digits.val_dataloader())), 0)
    outputs = getattr(model, f"{split}_step")((images, labels), 0)
    assert torch.equal(outputs["logits"], model(images))
    assert torch.equal(outputs["labels"], labels)


def test_each_metric_is_logged_once_per_epoch(digits, make_trainer, tmp_path):
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
    """Raise in the third step of a stage, as Ctrl-C or a full disk would."""

    def _stop(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0) -> None:
        if batch_idx == 2:
            raise InterruptedError

    on_train_batch_start = on_validation_batch_start = on_test_batch_start = _stop


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_interrupted_epoch_does_not_affect_the_next_one(split, digits, make_trainer, reference_metrics, monkeypatch):
    monkeypatch.setattr("datamodules.in_memory.EVAL_BATCH_SIZE", 50)
    model = LinearClassifier(SHAPE, 10, optimizer=NO_LEARNING)
    interrupted, repeated = make_trainer(max_epochs=1, callbacks=[_Interrupt()]), make_trainer(max_epochs=1)
    run = {"train": "fit", "val": "validate"}[split]
    with pytest.raises(InterruptedError):
        getattr(interrupted, run)(model, datamodule=digits)
    getattr(repeated, run)(model, datamodule=digits)
    expected = reference_metrics(model, getattr(digits, f"{split}_set"))
    assert _logged(repeated.callback_metrics, split) == pytest.approx(expected, rel=1e-5)


def test_an_interrupted_test_does_not_affect_the_next_one(digits, make_trainer, reference_metrics, monkeypatch):
    monkeypatch.setattr("datamodules.in_memory.EVAL_BATCH_SIZE", 50)
    model = LinearClassifier(SHAPE, 10)
    with pytest.raises(InterruptedError):
        make_trainer(callbacks=[_Interrupt()]).test(model, digits, verbose=False)
    (tested,) = make_trainer().test(model, digits, verbose=False)
    assert _logged(tested, "test") == pytest.approx(reference_metrics(model, digits.test_set), rel=1e-5)


def test_an_mlp_learns_real_digits_in_a_few_epochs(digits, make_trainer):
    torch.manual_seed(0)
    trainer = make_trainer(max_epochs=5)
    trainer.fit(MLP(SHAPE, 10, hidden=(64,)), digits)
    assert trainer.callback_metrics["val/acc"] > 0.8

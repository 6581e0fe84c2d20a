"""`evaluate_train`: metrics of the training set with the weights at the end of each epoch."""

import pytest
import torch
from lightning.pytorch import Callback

from datamodules.digits import Digits
from modules.convnet import ConvNet
from modules.mlp import MLP

SHAPE = (1, 28, 28)


def _data(**options) -> Digits:
    data = Digits(**{"n_train": 250, "n_val": 201, "batch_size": 60, "evaluate_train": True, **options})
    data.setup("fit")
    data.setup("test")
    return data


def _mlp(**options) -> MLP:
    torch.manual_seed(0)
    return MLP(SHAPE, 10, hidden=(32,), **options)


class _RecordEpochs(Callback):
    """Record the logged metrics of each epoch, and the metrics of the training set measured at its end."""

    def __init__(self, measure=None) -> None:
        self.logged: list[dict[str, float]] = []
        self.measured: list[tuple[float, float]] = []
        self._measure = measure

    def on_validation_end(self, trainer, pl_module) -> None:
        if self._measure is not None:  # the model is in evaluation mode here
            self.measured.append(self._measure(pl_module, trainer.datamodule.train_set))

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


@pytest.mark.parametrize(
    ("build", "options", "augmentation"),
    [
        (MLP, {"hidden": (32,), "dropout": 0.5}, {}),
        (MLP, {"hidden": (32,)}, {"crop_padding": 4, "flip": True}),
        (ConvNet, {"channels": (2,), "hidden": (), "batch_norm": True}, {}),
    ],
)
def test_train_end_metrics_are_those_of_the_final_weights_without_augmentation_and_dropout(
    build, options, augmentation, make_trainer, reference_metrics, monkeypatch
):
    monkeypatch.setattr("datamodules.in_memory.EVAL_BATCH_SIZE", 70)  # 4 batches, the last one of 40
    torch.manual_seed(0)
    epochs = _RecordEpochs(reference_metrics)
    make_trainer(max_epochs=3, callbacks=[epochs]).fit(build(SHAPE, 10, **options), _data(**augmentation))
    assert len(epochs.measured) == 3
    for logged, measured in zip(epochs.logged, epochs.measured, strict=True):
        assert (logged["train_end/loss"], logged["train_end/acc"]) == pytest.approx(measured, rel=1e-5)
    assert len({loss for loss, _ in epochs.measured}) == 3


def test_evaluating_the_training_set_changes_no_other_metric(make_trainer):
    logged = []
    for evaluate_train in (True, False):
        epochs = _RecordEpochs()
        trainer = make_trainer(max_epochs=3, callbacks=[epochs])
        trainer.fit(_mlp(dropout=0.5), _data(evaluate_train=evaluate_train))
        logged.append(epochs.logged)
    for with_train_end, without in zip(*logged, strict=True):
        assert {name: with_train_end[name] for name in without} == without
        assert with_train_end.keys() - without.keys() == {"train_end/loss", "train_end/acc"}


def test_validate_and_test_log_no_train_end_metrics(make_trainer):
    data, model = _data(), _mlp()
    (validated,) = make_trainer().validate(model, data, verbose=False)
    (tested,) = make_trainer().test(model, data, verbose=False)
    assert set(validated) == {"val/loss", "val/acc"}
    assert set(tested) == {"test/loss", "test/acc"}


def test_after_the_first_epoch_the_training_set_has_better_metrics_than_on_average(make_trainer):
    """This is why the validation accuracy of the first epoch may be above the training accuracy."""
    trainer = make_trainer(max_epochs=1)
    trainer.fit(_mlp(), _data())
    first = trainer.callback_metrics
    assert first["train_end/acc"] > first["train/acc"] + 0.1
    assert first["train_end/loss"] < first["train/loss"]


class _Interrupt(Callback):
    """Raise in the first evaluation, in the middle of the training set."""

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        if dataloader_idx == 1 and batch_idx == 1:
            raise InterruptedError


def test_an_interrupted_evaluation_does_not_affect_the_next_one(make_trainer, reference_metrics, monkeypatch):
    monkeypatch.setattr("datamodules.in_memory.EVAL_BATCH_SIZE", 50)
    data, model = _data(), _mlp()
    with pytest.raises(InterruptedError):
        make_trainer(max_epochs=1, callbacks=[_Interrupt()]).fit(model, datamodule=data)
    repeated = make_trainer(max_epochs=1)
    repeated.fit(model.train(), datamodule=data)
    logged = float(repeated.callback_metrics["train_end/loss"]), float(repeated.callback_metrics["train_end/acc"])
    assert logged == pytest.approx(reference_metrics(model, data.train_set), rel=1e-5)

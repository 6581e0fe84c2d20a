"""The training set measured once more: the figures of the weights at the epoch's end, beside the running averages."""

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


class _Epochs(Callback):
    """The figures of each epoch, and from the second one on the training figures of the one before."""

    def __init__(self, measure=None) -> None:
        self.logged: list[dict[str, float]] = []
        self.measured: list[tuple[float, float]] = []
        self._measure = measure

    def on_validation_end(self, trainer, pl_module) -> None:
        if self._measure is not None:  # in evaluation mode, as the model is now anyway
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
def test_they_are_those_of_the_weights_without_augmentation_and_dropout(
    build, options, augmentation, make_trainer, by_hand, monkeypatch
):
    monkeypatch.setattr("datamodules.base.EVAL_BATCH_SIZE", 70)  # 4 batches, the last one of 40
    torch.manual_seed(0)
    epochs = _Epochs(by_hand)
    make_trainer(max_epochs=3, callbacks=[epochs]).fit(build(SHAPE, 10, **options), _data(**augmentation))
    assert len(epochs.measured) == 3
    for logged, measured in zip(epochs.logged, epochs.measured, strict=True):
        assert (logged["train_end/loss"], logged["train_end/acc"]) == pytest.approx(measured, rel=1e-5)
    assert len({loss for loss, _ in epochs.measured}) == 3


def test_they_change_no_other_figure(make_trainer):
    found = []
    for evaluate_train in (True, False):
        epochs = _Epochs()
        trainer = make_trainer(max_epochs=3, callbacks=[epochs])
        trainer.fit(_mlp(dropout=0.5), _data(evaluate_train=evaluate_train))
        found.append(epochs.logged)
    with_them, without = found
    for one, other in zip(with_them, without, strict=True):
        assert {name: one[name] for name in other} == other
        assert one.keys() - other.keys() == {"train_end/loss", "train_end/acc"}


def test_only_a_training_has_them(make_trainer):
    data, model = _data(), _mlp()
    (validated,) = make_trainer().validate(model, data, verbose=False)
    (tested,) = make_trainer().test(model, data, verbose=False)
    assert set(validated) == {"val/loss", "val/acc"}
    assert set(tested) == {"test/loss", "test/acc"}


def test_the_first_epoch_ends_better_on_the_training_set_than_its_average(make_trainer):
    """Why the validation accuracy of a first epoch may lie above the training accuracy."""
    trainer = make_trainer(max_epochs=1)
    trainer.fit(_mlp(), _data())
    first = trainer.callback_metrics
    assert first["train_end/acc"] > first["train/acc"] + 0.1
    assert first["train_end/loss"] < first["train/loss"]


class _Interrupt(Callback):
    """Stops the first evaluation in the middle of the training set."""

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        if dataloader_idx == 1 and batch_idx == 1:
            raise InterruptedError


def test_an_interrupted_evaluation_leaves_nothing_behind(make_trainer, by_hand, monkeypatch):
    monkeypatch.setattr("datamodules.base.EVAL_BATCH_SIZE", 50)
    data, model = _data(), _mlp()
    with pytest.raises(InterruptedError):
        make_trainer(max_epochs=1, callbacks=[_Interrupt()]).fit(model, datamodule=data)
    again = make_trainer(max_epochs=1)
    again.fit(model.train(), datamodule=data)
    logged = float(again.callback_metrics["train_end/loss"]), float(again.callback_metrics["train_end/acc"])
    assert logged == pytest.approx(by_hand(model, data.train_set), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_smoothed_labels_are_trained_on_and_not_logged(smoothing, digits, make_trainer):
    """What is minimised is (1 - s) of the label's loss and s of the mean over all classes; the plain one is logged."""
    model = _mlp(label_smoothing=smoothing)
    images, labels = digits.normalize(digits.train_set.images_NCHW), digits.train_set.labels_N
    with torch.no_grad():
        log_p = model(images).double().log_softmax(1)
    plain, spread = -log_p[range(250), labels].mean(), -log_p.mean()
    model.train_metrics.reset()
    loss = model.training_step((images, labels), 0)
    assert float(loss.detach()) == pytest.approx(float((1 - smoothing) * plain + smoothing * spread), rel=1e-6)
    assert float(model.train_metrics.compute()["train/loss"]) == pytest.approx(float(plain), rel=1e-6)
    outputs = model.validation_step((images, labels), 0)
    assert set(outputs) == {"logits", "labels"}
    assert float(model.val_metrics.compute()["val/loss"]) == pytest.approx(float(plain), rel=1e-6)


def test_smoothing_keeps_the_logits_from_growing(digits, make_trainer):
    largest = []
    for smoothing in (0.0, 0.2):
        model = _mlp(label_smoothing=smoothing)
        make_trainer(max_epochs=20).fit(model, digits)
        logits = model.eval()(digits.normalize(digits.train_set.images_NCHW))
        largest.append(float(logits.detach().softmax(1).amax(1).mean()))
    assert largest[1] < largest[0] - 0.1


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": -0.1},
        {"label_smoothing": 1.0},
        {"label_smoothing": float("nan")},
        {"label_smoothing": 0.1, "loss": "quadratic"},
    ],
)
def test_a_label_smoothing_out_of_range_or_with_the_quadratic_loss_is_refused_by_its_key(options):
    with pytest.raises(ValueError, match=rf"model\.label_smoothing is {options['label_smoothing']}"):
        _mlp(**options)

"""Optimisers and schedulers: any callables, with the same effect as in a plain training loop."""

import math
from functools import partial

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import ReduceLROnPlateau
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from modules.base import quadratic_loss
from modules.linear import LinearClassifier

SHAPE = (1, 28, 28)
SGD = partial(torch.optim.SGD, lr=0.1)


def _learning_rate(trainer) -> float:
    (optimizer,) = trainer.optimizers
    return optimizer.param_groups[0]["lr"]


def _fit(trainer, digits, **options) -> float:
    """Learning rate at the end of a fit with five steps per epoch."""
    trainer.fit(LinearClassifier(SHAPE, 10, **options), digits)
    assert trainer.num_training_batches == 5
    return _learning_rate(trainer)


@pytest.mark.parametrize(("loss", "function"), [("cross_entropy", F.cross_entropy), ("quadratic", quadratic_loss)])
def test_one_step_subtracts_the_learning_rate_times_the_gradient_of_the_loss(loss, function, digits, make_trainer):
    model = LinearClassifier(SHAPE, 10, loss=loss, optimizer=SGD)
    before = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
    images, labels = next(iter(digits.train_dataloader()))
    value = function(F.linear(digits.normalize(images).flatten(1), *before), labels)
    gradients = torch.autograd.grad(value, before)
    make_trainer(max_steps=1).fit(model, digits)
    for after, start, gradient in zip(model.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(after, start - 0.1 * gradient)


def test_the_default_is_adam_with_torchs_constant_learning_rate(digits, make_trainer):
    trainer = make_trainer(max_epochs=2)
    assert _fit(trainer, digits) == 0.001
    assert type(trainer.optimizers[0]) is torch.optim.Adam


@pytest.mark.parametrize(("interval", "steps"), [("epoch", 2), ("step", 10)])
def test_a_scheduler_steps_each_epoch_or_each_step(interval, steps, digits, make_trainer):
    halving = partial(StepLR, step_size=1, gamma=0.5)
    rate = _fit(make_trainer(max_epochs=2), digits, optimizer=SGD, lr_scheduler=halving, lr_interval=interval)
    assert rate == pytest.approx(0.1 * 0.5**steps)


def test_cosine_annealing_over_four_epochs_is_a_quarter_done_after_one(digits, make_trainer):
    cosine = partial(CosineAnnealingLR, T_max=4)
    rate = _fit(make_trainer(max_epochs=1), digits, optimizer=SGD, lr_scheduler=cosine)
    assert rate == pytest.approx(0.1 * (1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize(
    ("monitor", "mode", "expected"),
    [
        ("train/loss", "min", 0.01),  # it decreases in each epoch
        ("train/loss", "max", 0.01 * 0.5**2),  # so the first of three epochs is never exceeded
    ],
)
def test_a_plateau_scheduler_follows_its_monitored_metric(monitor, mode, expected, digits, make_trainer):
    torch.manual_seed(0)
    plateau = partial(ReduceLROnPlateau, monitor=monitor, mode=mode, factor=0.5, patience=0)
    rate = _fit(make_trainer(max_epochs=3), digits, optimizer=partial(SGD, lr=0.01), lr_scheduler=plateau)
    assert rate == pytest.approx(expected)


def test_monitoring_a_metric_that_is_not_logged_is_an_error(digits, make_trainer):
    plateau = partial(ReduceLROnPlateau, monitor="val/los")
    with pytest.raises(MisconfigurationException, match="val/los which is not available"):
        _fit(make_trainer(max_epochs=1), digits, lr_scheduler=plateau)

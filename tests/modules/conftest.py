"""Fixtures: a small set of real digits, and reference metrics of a model on a whole set."""

from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import LightningModule

from datamodules.digits import Digits
from datamodules.sets import TensorSet


@pytest.fixture(autouse=True)
def usual_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of examples is that of seed 0, whichever seed an earlier test of this process has set."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


@pytest.fixture
def digits() -> Digits:
    """Digits with 250 training, 201 validation and 360 test images, in batches of 60."""
    data = Digits(n_train=250, n_val=201, batch_size=60)
    data.setup("fit")
    data.setup("test")
    return data


@pytest.fixture
def reference_metrics(digits: Digits) -> Callable[[LightningModule, TensorSet], tuple[float, float]]:
    """Function that returns loss and accuracy of a model, computed on a whole set at once."""

    def measure(model: LightningModule, dataset: TensorSet) -> tuple[float, float]:
        assert digits.normalize is not None
        model.eval()
        with torch.no_grad():
            log_probabilities = model(digits.normalize(dataset.inputs)).double().log_softmax(1)
        loss = -log_probabilities[range(len(dataset)), dataset.targets].mean()
        correct = (log_probabilities.argmax(1) == dataset.targets).sum()
        return float(loss), float(correct) / len(dataset)

    return measure

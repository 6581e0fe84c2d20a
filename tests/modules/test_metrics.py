"""Buffered metrics: the same values as torchmetrics updated in every step, and as numpy."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from modules.metrics import UPDATE_EVERY_N_STEPS, MeanLoss, SplitMetrics

N = UPDATE_EVERY_N_STEPS
Batch = tuple[torch.Tensor, torch.Tensor]


def _collection() -> MetricCollection:
    return MetricCollection(
        {"loss": MeanLoss(F.cross_entropy), "acc": MulticlassAccuracy(10, average="micro")}, prefix="val/"
    )


def _batches(count: int, last: int = 20, seed: int = 0) -> list[Batch]:
    """`count` batches of 20 examples, except for the last one, which has `last` examples."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [20] * (count - 1) + [last]
    logits = [3 * torch.randn(size, 10, generator=generator) for size in sizes]
    return [(batch, torch.randint(0, 10, (len(batch),), generator=generator)) for batch in logits]


def _numpy_metrics(batches: list[Batch]) -> dict[str, float]:
    logits = np.concatenate([batch.numpy() for batch, _ in batches]).astype(float)
    labels = np.concatenate([batch.numpy() for _, batch in batches])
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    loss = -log_probabilities[range(len(labels)), labels].mean()
    return {"val/loss": loss, "val/acc": (logits.argmax(1) == labels).mean()}


def _update(metrics: SplitMetrics | MetricCollection, batches: list[Batch]) -> None:
    for logits, labels in batches:
        metrics.update(logits, labels)


def _floats(values: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


@pytest.mark.parametrize("last", [20, 1, 13])
@pytest.mark.parametrize("count", [1, 2, N - 1, N, N + 1, 2 * N, 2 * N + 3])
def test_buffering_changes_no_metric(count, last):
    batches = _batches(count, last)
    unbuffered, buffered = _collection(), SplitMetrics(_collection())
    _update(unbuffered, batches)
    _update(buffered, batches)
    values = _floats(buffered.compute())
    assert values == pytest.approx(_floats(unbuffered.compute()), rel=1e-6)
    assert values == pytest.approx(_numpy_metrics(batches), rel=1e-6)


def test_the_mean_loss_weights_examples_equally_not_batches():
    metric = MeanLoss(F.l1_loss)
    metric.update(torch.ones(9), torch.zeros(9))
    metric.update(torch.full((1,), 11.0), torch.zeros(1))
    assert float(metric.compute()) == 2.0


def test_the_mean_loss_keeps_its_precision_over_many_examples():
    """In single precision, adding 1 to a sum above 2^24 has no effect."""
    metric = MeanLoss(F.l1_loss)
    metric.update(torch.ones(2**24), torch.zeros(2**24))
    for _ in range(64):
        metric.update(torch.full((1,), 1 + 2.0**18), torch.zeros(1))
    assert float(metric.compute()) == pytest.approx(1 + 64 * 2**18 / (2**24 + 64), rel=1e-7)


@pytest.mark.parametrize("count", [1, N, N + 1])
def test_compute_resets_the_metrics(count):
    metrics, first, second = SplitMetrics(_collection()), _batches(count, 7, seed=1), _batches(2, 5, seed=2)
    _update(metrics, first)
    metrics.compute()
    _update(metrics, second)
    assert _floats(metrics.compute()) == pytest.approx(_numpy_metrics(second), rel=1e-6)


@pytest.mark.parametrize("count", [1, N, N + 1])
def test_reset_discards_both_the_state_and_the_buffer(count):
    metrics, second = SplitMetrics(_collection()), _batches(2, 5, seed=2)
    _update(metrics, _batches(count, 7, seed=1))
    metrics.reset()
    _update(metrics, second)
    assert _floats(metrics.compute()) == pytest.approx(_numpy_metrics(second), rel=1e-6)


def test_the_buffer_is_bounded():
    """Memory must not grow with the length of an epoch."""
    metrics, lengths = SplitMetrics(_collection()), []
    for logits, labels in _batches(3 * N):
        metrics.update(logits, labels)
        lengths.append(len(metrics._pending))
    assert max(lengths) < N


def test_buffered_outputs_are_detached():
    metrics = SplitMetrics(_collection())
    logits = torch.zeros(3, 10, requires_grad=True) * 1
    metrics.update(logits, torch.zeros(3, dtype=torch.int64))
    assert not any(outputs.requires_grad for outputs, _ in metrics._pending)


def test_bfloat16_outputs_are_measured_in_single_precision():
    batches = [(logits.bfloat16(), labels) for logits, labels in _batches(3, 7)]
    metrics = SplitMetrics(_collection())
    _update(metrics, batches)
    expected = _numpy_metrics([(logits.float(), labels) for logits, labels in batches])
    assert _floats(metrics.compute()) == pytest.approx(expected, rel=1e-6)

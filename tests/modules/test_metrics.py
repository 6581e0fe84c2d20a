"""Metrics that wait for a chunk: the same figures as torchmetrics at every step, and as numpy at the end."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from modules.metrics import CHUNK, MeanLoss, SplitMetrics

Batch = tuple[torch.Tensor, torch.Tensor]


def _collection() -> MetricCollection:
    return MetricCollection(
        {"loss": MeanLoss(F.cross_entropy), "acc": MulticlassAccuracy(10, average="micro")}, prefix="val/"
    )


def _batches(count: int, last: int = 20, seed: int = 0) -> list[Batch]:
    """This many batches of 20 examples, the last one of another size."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [20] * (count - 1) + [last]
    logits = [3 * torch.randn(size, 10, generator=generator) for size in sizes]
    return [(batch, torch.randint(0, 10, (len(batch),), generator=generator)) for batch in logits]


def _numpy(batches: list[Batch]) -> dict[str, float]:
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
@pytest.mark.parametrize("count", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 3])
def test_waiting_for_a_chunk_changes_no_figure(count, last):
    batches = _batches(count, last)
    each_step, chunked = _collection(), SplitMetrics(_collection())
    _update(each_step, batches)
    _update(chunked, batches)
    ours = _floats(chunked.compute())
    assert ours == pytest.approx(_floats(each_step.compute()), rel=1e-6)
    assert ours == pytest.approx(_numpy(batches), rel=1e-6)


def test_the_mean_loss_weighs_examples_not_batches():
    metric = MeanLoss(F.l1_loss)
    metric.update(torch.ones(9), torch.zeros(9))
    metric.update(torch.full((1,), 11.0), torch.zeros(1))
    assert float(metric.compute()) == 2.0


def test_the_mean_loss_keeps_its_precision_over_many_examples():
    """In single precision, a sum beyond 2^24 takes no more ones."""
    metric = MeanLoss(F.l1_loss)
    metric.update(torch.ones(2**24), torch.zeros(2**24))
    for _ in range(64):
        metric.update(torch.full((1,), 1 + 2.0**18), torch.zeros(1))
    assert float(metric.compute()) == pytest.approx(1 + 64 * 2**18 / (2**24 + 64), rel=1e-7)


@pytest.mark.parametrize("count", [1, CHUNK, CHUNK + 1])
def test_each_epoch_starts_anew(count):
    metrics, first, second = SplitMetrics(_collection()), _batches(count, 7, seed=1), _batches(2, 5, seed=2)
    _update(metrics, first)
    metrics.compute()
    _update(metrics, second)
    assert _floats(metrics.compute()) == pytest.approx(_numpy(second), rel=1e-6)


@pytest.mark.parametrize("count", [1, CHUNK, CHUNK + 1])
def test_reset_forgets_both_what_was_counted_and_what_waits(count):
    metrics, second = SplitMetrics(_collection()), _batches(2, 5, seed=2)
    _update(metrics, _batches(count, 7, seed=1))
    metrics.reset()
    _update(metrics, second)
    assert _floats(metrics.compute()) == pytest.approx(_numpy(second), rel=1e-6)


def test_no_more_than_a_chunk_of_outputs_is_kept():
    """The memory of an epoch must not grow with its length."""
    metrics, kept = SplitMetrics(_collection()), []
    for logits, labels in _batches(3 * CHUNK):
        metrics.update(logits, labels)
        kept.append(len(metrics._waiting))
    assert max(kept) < CHUNK


def test_kept_outputs_hold_on_to_no_graph():
    metrics = SplitMetrics(_collection())
    logits = torch.zeros(3, 10, requires_grad=True) * 1
    metrics.update(logits, torch.zeros(3, dtype=torch.int64))
    assert not any(outputs.requires_grad for outputs, _ in metrics._waiting)


def test_outputs_in_half_precision_are_measured_in_single():
    batches = [(logits.bfloat16(), labels) for logits, labels in _batches(3, 7)]
    metrics = SplitMetrics(_collection())
    _update(metrics, batches)
    expected = _numpy([(logits.float(), labels) for logits, labels in batches])
    assert _floats(metrics.compute()) == pytest.approx(expected, rel=1e-6)

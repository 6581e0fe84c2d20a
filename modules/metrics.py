"""Metrics of one split, updated once per several steps.

A torchmetrics update costs as much as several layers of a small network. So the outputs of each step are buffered and
passed to torchmetrics a few thousand examples at a time. The result is the same.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities import dim_zero_cat

from modules.torch_internals import set_accumulated

UPDATE_EVERY_N_STEPS = 32
"""Steps between two updates. Bounds the memory of the buffered outputs."""


class MeanLoss(Metric):
    """Mean of a loss over examples.

    Args:
        loss: Function of outputs and targets that returns their mean loss.
    """

    full_state_update = False
    sums: list[Tensor]
    counts: list[Tensor]

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss
        self.add_state("sums", [], dist_reduce_fx="cat")
        self.add_state("counts", [], dist_reduce_fx="cat")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        count = torch.full((1,), len(targets), device=outputs.device)  # torch.tensor would wait for a GPU
        self.sums.append(self.loss(outputs, targets) * count)
        self.counts.append(count)

    def compute(self) -> Tensor:
        # A running sum in float32 would lose precision, and not every device has float64.
        total, count = dim_zero_cat(self.sums).cpu().double().sum(), dim_zero_cat(self.counts).cpu().sum()
        return (total / count).float().to(self.device)


class KNNAccuracy(Metric):
    """Leave-one-out accuracy of a k-nearest-neighbour classifier: each point is classified by the other points.

    NaN if there are fewer than two points, or if a point is not finite.

    Args:
        k: Number of neighbours. With fewer other points, all of them vote.
    """

    full_state_update = False
    points: list[Tensor]
    labels: list[Tensor]

    def __init__(self, k: int = 10) -> None:
        super().__init__()
        self.k = k
        self.add_state("points", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, points_BD: Tensor, labels_B: Tensor) -> None:
        """Add points and their labels, which start at 0."""
        self.points.append(points_BD)
        self.labels.append(labels_B)

    def compute(self) -> Tensor:
        from sklearn.neighbors import NearestNeighbors

        points_ND, labels_N = dim_zero_cat(self.points).cpu(), dim_zero_cat(self.labels).cpu()
        k = min(self.k, len(points_ND) - 1)
        if k < 1 or not points_ND.isfinite().all():
            return torch.tensor(torch.nan, device=self.device)
        neighbours_NK = NearestNeighbors(n_neighbors=k).fit(points_ND.numpy()).kneighbors(return_distance=False)
        votes_NC = nn.functional.one_hot(labels_N[torch.from_numpy(neighbours_NK)]).sum(1)
        return (votes_NC.argmax(1) == labels_N).float().mean().to(self.device)


class SplitMetrics(nn.Module):
    """A MetricCollection that buffers the outputs of `UPDATE_EVERY_N_STEPS` steps before each update.

    Args:
        metrics: The metrics. Their prefix names the split.

    Attributes:
        others: Metrics of other outputs, none by default. The module updates them itself.
    """

    def __init__(self, metrics: MetricCollection) -> None:
        super().__init__()
        self.metrics = metrics
        self.others = MetricCollection({})
        self._pending: list[tuple[Tensor, Tensor]] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Buffer the outputs and targets of a step."""
        if len(targets):  # a process may have no examples in the last batch
            self._pending.append((outputs.detach(), targets))
        if len(self._pending) == UPDATE_EVERY_N_STEPS:
            self._flush()

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics over all updates since the last call, of all processes, and reset them."""
        self._flush()
        values: dict[str, Tensor] = {**self.metrics.compute(), **self.others.compute()}
        self.reset()
        return values

    def reset(self) -> None:
        """Discard the metric states and the buffer."""
        self._pending.clear()
        self.metrics.reset()
        self.others.reset()

    @property
    def pending(self) -> list[tuple[Tensor, Tensor]]:
        """Buffered outputs and targets."""
        return self._pending

    def _flush(self) -> None:
        if self._pending:
            outputs, targets = (torch.cat(parts) for parts in zip(*self._pending, strict=True))
            self._pending.clear()
            self.metrics.update(outputs.float(), targets)


def metric_states(module: nn.Module) -> dict[str, Any]:
    """Return what the metrics of a module have accumulated, by the metric's name, as tensors and plain values."""
    states: dict[str, Any] = {}
    for part in module.modules():
        if isinstance(part, MetricCollection):
            part.values()  # updates those of its metrics that share a state with another one
    for name, part in module.named_modules():
        if isinstance(part, Metric) and part.update_called:
            states[name] = {"count": part.update_count, "values": part.metric_state}
        elif isinstance(part, SplitMetrics) and part.pending:
            states[name] = {"pending": list(part.pending)}
    return states


def load_metric_states(module: nn.Module, states: Mapping[str, Any]) -> None:
    """Restore what `metric_states` returned."""
    for name, part in module.named_modules():
        state = states.get(name, {})
        if isinstance(part, SplitMetrics):
            part.pending[:] = state.get("pending", [])
        elif isinstance(part, Metric) and state:
            set_accumulated(part, state["values"], state["count"])

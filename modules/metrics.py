"""Metrics of one split, accumulated in whole chunks.

A torchmetrics update costs as much as several layers of a small network. So the outputs of each step are only kept, and
handed to torchmetrics a few thousand examples at a time; the result is the same.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities import dim_zero_cat

CHUNK = 32
"""Steps between two updates: bounds the memory that kept outputs take."""


class MeanLoss(Metric):
    """The mean of a loss over examples.

    Args:
        loss: Maps outputs and targets to their mean loss.
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
        count = torch.tensor([len(targets)], device=outputs.device)
        self.sums.append(self.loss(outputs, targets) * count)
        self.counts.append(count)

    def compute(self) -> Tensor:
        # One running sum would lose digits in float32, and not every device has float64.
        total, count = dim_zero_cat(self.sums).cpu().double().sum(), dim_zero_cat(self.counts).cpu().sum()
        return (total / count).float().to(self.device)


class NeighbourAccuracy(Metric):
    """How well points lie among their own: the accuracy of a k-nearest-neighbour vote, each point left out of its own.

    Args:
        k: Number of neighbours that vote.
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
        """Take points and their classes, which are counted from 0."""
        self.points.append(points_BD)
        self.labels.append(labels_B)

    def compute(self) -> Tensor:
        from sklearn.neighbors import NearestNeighbors

        points_ND, labels_N = dim_zero_cat(self.points).cpu(), dim_zero_cat(self.labels).cpu()
        k = min(self.k, len(points_ND) - 1)
        if k < 1 or not points_ND.isfinite().all():
            return torch.tensor(torch.nan, device=self.device)
        near_NK = NearestNeighbors(n_neighbors=k).fit(points_ND.numpy()).kneighbors(return_distance=False)
        votes_NC = nn.functional.one_hot(labels_N[torch.from_numpy(near_NK)]).sum(1)
        return (votes_NC.argmax(1) == labels_N).float().mean().to(self.device)


class SplitMetrics(nn.Module):
    """A MetricCollection whose updates wait until a chunk of them has come together.

    Args:
        metrics: What to measure; its prefix names the split.
    """

    def __init__(self, metrics: MetricCollection) -> None:
        super().__init__()
        self.metrics = metrics
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Keep a step's outputs and targets."""
        if len(targets):  # in a last batch, a process may have no example
            self._waiting.append((outputs.detach(), targets))
        if len(self._waiting) == CHUNK:
            self._flush()

    def compute(self) -> dict[str, Tensor]:
        """The metrics over all that was kept since the last call, of all processes together."""
        self._flush()
        values: dict[str, Tensor] = self.metrics.compute()
        self.metrics.reset()
        return values

    def reset(self) -> None:
        """Forget what was kept."""
        self._waiting.clear()
        self.metrics.reset()

    def _flush(self) -> None:
        if self._waiting:
            outputs, targets = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
            self._waiting.clear()
            self.metrics.update(outputs.float(), targets)

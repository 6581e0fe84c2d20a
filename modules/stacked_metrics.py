"""Loss and accuracy of N models at once. The values are those of each model's own metrics, up to rounding.

Shapes: N models, B examples, K classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import vmap
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from modules.metrics import UPDATE_EVERY_N_STEPS, MeanLoss, SplitMetrics


class StackedMetrics:
    """The metrics of one split of N models.

    Args:
        splits: The metrics of each model. Those of the first must be known, see `takes`.
    """

    def __init__(self, splits: Sequence[SplitMetrics]) -> None:
        self._metrics, self._size = splits[0].metrics, len(splits)
        self._pending: list[tuple[Tensor, Tensor]] = []
        self.reset()

    @staticmethod
    def takes(split: SplitMetrics) -> bool:
        """Return whether all metrics are mean losses, and accuracies over all examples."""
        return all(type(metric) is MeanLoss or _is_accuracy(metric) for metric in _by_name(split.metrics).values())

    def reset(self) -> None:
        """Forget all updates."""
        self._pending.clear()
        self._sums: dict[str, list[Tensor]] = {name: [] for name in _by_name(self._metrics)}
        self._count = 0

    def update(self, outputs_NBK: Tensor, targets_NB: Tensor) -> None:
        """Add a batch."""
        self._pending.append((outputs_NBK, targets_NB))
        if len(self._pending) == UPDATE_EVERY_N_STEPS:
            self._flush()

    def compute(self) -> list[dict[str, Tensor]]:
        """Return the metrics of each model on the CPU, over all updates since the last call, and reset them."""
        self._flush()
        totals = [torch.stack(parts).double().sum(0) for parts in self._sums.values()]
        rows = (torch.stack(totals, 1) / self._count).float().cpu()
        names = list(self._sums)
        self.reset()
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _flush(self) -> None:
        if not self._pending:
            return
        outputs, targets = (torch.cat(parts, 1) for parts in zip(*self._pending, strict=True))
        self._pending.clear()
        count = targets.shape[1]
        self._count += count
        for name, metric in _by_name(self._metrics).items():
            if isinstance(metric, MeanLoss):
                self._sums[name].append(vmap(metric.loss)(outputs.float(), targets) * count)
            else:
                self._sums[name].append((outputs.argmax(2) == targets).sum(1))


class SeparateMetrics:
    """The metrics of one split of N models, of any kind, each updated for itself.

    Args:
        splits: The metrics of each model.
    """

    def __init__(self, splits: Sequence[SplitMetrics]) -> None:
        self._splits = list(splits)

    def update(self, *values: Tensor) -> None:
        """Add a batch, whose tensors have a first axis of N."""
        for split, *own in zip(self._splits, *values, strict=True):
            split.update(*own)

    def compute(self) -> list[dict[str, Tensor]]:
        """Return the metrics of each model over all updates since the last call, and reset them."""
        return [split.compute() for split in self._splits]


def _by_name(metrics: MetricCollection) -> dict[str, object]:
    return {str(name): metric for name, metric in metrics.items(keep_base=False, copy_state=False)}


def _is_accuracy(metric: object) -> bool:
    """Return whether a metric is the share of all examples whose largest output is that of their class."""
    return type(metric) is MulticlassAccuracy and (
        (metric.average, metric.top_k, metric.multidim_average, metric.ignore_index) == ("micro", 1, "global", None)
    )

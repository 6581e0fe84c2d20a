"""The true values of the examples that a module predicts."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor

from pipelines.evaluation.predictions import TARGETS

_KEYS = (*TARGETS, "label")  # of a batch that is a dictionary


class BatchTargets(Callback):
    """Collects the targets of the batches that a trainer predicts, if there is one number for each example."""

    def __init__(self) -> None:
        self._batches: dict[int, list[Tensor | None]] = {}

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._batches.setdefault(dataloader_idx, []).append(targets_of(batch))

    def of_loader(self, index: int) -> Tensor | None:
        """Return the targets of a data loader in order, shape (N,); None if a batch has none."""
        batches = self._batches.get(index, [])
        found = [targets for targets in batches if targets is not None]
        return torch.cat(found) if batches and len(found) == len(batches) else None


def targets_of(batch: Any) -> Tensor | None:
    """Return the targets of a batch on the CPU, shape (N,): the second of two parts, or the key of a dictionary.

    Returns:
        None where it has no such part, or more than one number for an example.
    """
    target: Any = None
    if isinstance(batch, Mapping):
        target = next((batch[key] for key in _KEYS if key in batch), None)
    elif isinstance(batch, list | tuple) and len(batch) == 2:
        target = batch[1]
    if not isinstance(target, Tensor) or target.ndim == 0 or target[0:1].numel() > 1:
        return None
    return target.detach().reshape(-1).cpu()

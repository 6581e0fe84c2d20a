"""Datasets that are held in memory and fetched in whole batches, and datasets of image files.

Shapes: N examples of a set, C channels, H rows, W columns.
"""

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from datamodules.images import read_image
from datamodules.sampling import PAD_INDEX

Batch = tuple[Tensor, ...]


def drop_padding(batch: Sequence[int]) -> Tensor:
    """Return the indices of a batch without `PAD_INDEX`. The result may be empty."""
    indices = np.asarray(batch, dtype=np.int64)  # torch.tensor is five times slower on a list
    return torch.from_numpy(indices[indices != PAD_INDEX])


class TensorSet(TensorDataset):
    """Inputs and targets of N examples, fetched in whole batches. Images are uint8 pixels, 0 to 255, (N, C, H, W)."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        super().__init__(inputs, targets)
        self.inputs, self.targets = inputs, targets

    def __getitems__(self, batch: Sequence[int]) -> Batch:
        return self.select(drop_padding(batch))

    def select(self, rows: Tensor) -> Batch:
        """Return the examples with these indices, which are on the device of the set."""
        return self.inputs.index_select(0, rows), self.targets.index_select(0, rows)

    @property
    def nbytes(self) -> int:
        """Memory of the examples."""
        return self.inputs.nbytes + self.targets.nbytes

    def to(self, device: torch.device) -> Self:
        """Return the set with its examples on a device."""
        moved = copy.copy(self)
        moved.inputs, moved.targets = self.inputs.to(device), self.targets.to(device)
        moved.tensors = (moved.inputs, moved.targets)
        return moved

    def digest(self) -> str:
        """Return the SHA-256 of the shape of the inputs, the inputs and the targets, in the order of the set."""
        hasher = hashlib.sha256(str(tuple(self.inputs.shape)).encode())
        hasher.update(self.inputs.numpy().tobytes())
        hasher.update(self.targets.numpy().tobytes())
        return hasher.hexdigest()


class ImageFiles(Dataset[Batch]):
    """Image files without labels, decoded to one shape on access.

    Args:
        paths: Image files.
        shape: Channels, rows and columns of the decoded images.
        invert: Whether to invert the pixel values, for dark digits on light paper.
    """

    def __init__(self, paths: Sequence[Path], shape: tuple[int, int, int], *, invert: bool = False) -> None:
        self._paths, self._shape, self._invert = paths, shape, invert

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Batch:
        pixels_CHW = read_image(self._paths[index], self._shape)
        return (255 - pixels_CHW if self._invert else pixels_CHW,)

    def __getitems__(self, batch: Sequence[int]) -> Batch:
        return (torch.stack([self[index][0] for index in batch]),)

"""Datasets that are held in memory and fetched in whole batches, and datasets of image files.

Shapes: N examples of a set, C channels, H rows, W columns.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.images import read_image
from datamodules.sampling import PAD_INDEX

Batch = tuple[Tensor, ...]


def drop_padding(batch: Sequence[int]) -> Tensor:
    """Return the indices of a batch without `PAD_INDEX`. The result may be empty."""
    indices = np.asarray(batch, dtype=np.int64)  # torch.tensor is five times slower on a list
    return torch.from_numpy(indices[indices != PAD_INDEX])


class TensorSet(Dataset[Batch]):
    """Subset of tensors, selected by indices. The tensors are shared, not copied.

    Args:
        inputs: Model inputs, first axis N.
        targets: Targets, first axis N.
        indices: Indices of the examples of this set; all examples by default.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, indices: Tensor | None = None) -> None:
        assert len(inputs) == len(targets)
        self._inputs, self._targets = inputs, targets
        self._indices = torch.arange(len(targets)) if indices is None else indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Batch:
        row = self._indices[index]
        return self._inputs[row], self._targets[row]

    def __getitems__(self, batch: Sequence[int]) -> Batch:
        rows = self._indices[drop_padding(batch)]
        return self._inputs.index_select(0, rows), self._targets.index_select(0, rows)

    @property
    def inputs(self) -> Tensor:
        """Inputs of this set, in its order."""
        return self._inputs[self._indices]

    @property
    def targets(self) -> Tensor:
        """Targets of this set, in its order."""
        return self._targets[self._indices]

    def digest(self) -> str:
        """Return the SHA-256 of the shape of the inputs, the inputs and the targets, in the order of the set."""
        hasher = hashlib.sha256(str(tuple(self.inputs.shape)).encode())
        hasher.update(self.inputs.numpy().tobytes())
        hasher.update(self.targets.numpy().tobytes())
        return hasher.hexdigest()


class ImageSet(TensorSet):
    """Labelled images: uint8 pixels, 0 to 255, of shape (N, C, H, W), and int64 labels of shape (N,)."""

    def __init__(self, images_NCHW: Tensor, labels_N: Tensor, indices: Tensor | None = None) -> None:
        assert images_NCHW.dtype == torch.uint8
        super().__init__(images_NCHW, labels_N, indices)

    @property
    def images_NCHW(self) -> Tensor:
        """uint8 pixels of this set, in its order."""
        return self.inputs

    @property
    def labels_N(self) -> Tensor:
        """int64 labels of this set, in its order."""
        return self.targets


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

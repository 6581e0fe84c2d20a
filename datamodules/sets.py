"""Sets of examples that are held in memory and fetched by whole batches.

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
from datamodules.sampling import NOBODY

Batch = tuple[Tensor, ...]


def present(batch: Sequence[int]) -> Tensor:
    """The indices of a batch; without `NOBODY`, so that there may be none."""
    indices = np.asarray(batch, dtype=np.int64)  # torch alone is five times slower on a list
    return torch.from_numpy(indices[indices != NOBODY])


class TensorSet(Dataset[Batch]):
    """Some examples of a collection, by index; the collection itself is shared, not copied.

    Args:
        inputs: What a model sees, first axis N.
        targets: What it is to say, first axis N.
        indices: The examples that belong to this set; all of them by default.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, indices: Tensor | None = None) -> None:
        assert len(inputs) == len(targets)
        self._inputs, self._targets = inputs, targets
        self._indices = torch.arange(len(targets)) if indices is None else indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Batch:
        where = self._indices[index]
        return self._inputs[where], self._targets[where]

    def __getitems__(self, batch: Sequence[int]) -> Batch:
        where = self._indices[present(batch)]
        return self._inputs.index_select(0, where), self._targets.index_select(0, where)

    @property
    def inputs(self) -> Tensor:
        """The inputs of this set, in its order."""
        return self._inputs[self._indices]

    @property
    def targets(self) -> Tensor:
        """The targets of this set, in its order."""
        return self._targets[self._indices]

    def digest(self) -> str:
        """SHA-256 of the set's shape, inputs and targets, in its order."""
        state = hashlib.sha256(str(tuple(self.inputs.shape)).encode())
        state.update(self.inputs.numpy().tobytes())
        state.update(self.targets.numpy().tobytes())
        return state.hexdigest()


class ImageSet(TensorSet):
    """Labelled images: uint8 pixels, 0 to 255, of shape (N, C, H, W), and int64 classes of shape (N,)."""

    def __init__(self, images_NCHW: Tensor, labels_N: Tensor, indices: Tensor | None = None) -> None:
        assert images_NCHW.dtype == torch.uint8
        super().__init__(images_NCHW, labels_N, indices)

    @property
    def images_NCHW(self) -> Tensor:
        """uint8 pixels of this set, in its order."""
        return self.inputs

    @property
    def labels_N(self) -> Tensor:
        """int64 classes of this set, in its order."""
        return self.targets


class ImageFiles(Dataset[Batch]):
    """Image files, decoded to one shape when they are asked for; they have no labels.

    Args:
        paths: The files.
        shape: Channels, rows, columns.
        invert: Turn dark on light into light on dark.
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

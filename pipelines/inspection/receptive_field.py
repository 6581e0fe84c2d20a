"""Receptive fields: the positions of the input that make a value NaN if they are NaN.

NaN passes through sums, products, activations and pooling, whatever the weights are. So a network is run on copies of
an example, each with NaN in one row or one column. In float64: torch computes some convolutions in float32 by methods
that spread NaN to neighbouring outputs.
"""

from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor

MAX_BATCH_VALUES = 1_500_000  # 9 images of 3 x 224 x 224


class Reach:
    """The first and last position of the input, on each spatial axis, that each value of a tensor depends on.

    Attributes:
        first: Shape (A, *value) for A axes; inf where a value depends on nothing.
        last: Same shape; -inf where a value depends on nothing.
    """

    def __init__(self, axes: int, shape: Sequence[int]) -> None:
        self.first = torch.full((axes, *shape), torch.inf)
        self.last = -self.first

    def update(self, axis: int, positions: Tensor, nan: Tensor) -> bool:
        """Add a batch of `probes`, of positions above those before. Return whether each example shows its own NaN.

        Args:
            axis: Number of the spatial axis.
            positions: As in the batch.
            nan: Where the output for the batch is NaN.
        """
        if nan.shape != (len(positions) + 3, *self.first.shape[1:]) or nan[0].any() or nan[-1].any():
            return False
        position, probed = positions.view(-1, *[1] * (nan.ndim - 1)).float(), nan[2:-1].contiguous()
        first, last = position.where(probed, torch.inf).amin(0), position.where(probed, -torch.inf).amax(0)
        self.first[axis], self.last[axis] = self.first[axis].minimum(first), self.last[axis].maximum(last)
        return not (first.isfinite() & ~nan[1]).any()

    @property
    def size(self) -> tuple[int, ...] | None:
        """The largest receptive field of the values, in positions per axis; None if they depend on nothing."""
        sizes = (self.last - self.first + 1).clamp(min=0).reshape(len(self.first), -1).amax(1)
        return tuple(int(size) for size in sizes) if sizes.any() else None


def example(input_shape: Sequence[int]) -> Tensor:
    """Return an example of random values from 0 to 1, the same at each call; shape (1, *input_shape)."""
    return torch.rand(1, *input_shape, generator=torch.Generator().manual_seed(0))


def probes(input_shape: Sequence[int]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield the number of a spatial axis, P of its positions, and a batch of shape (P + 3, *input_shape) for them.

    The first and the last example of a batch are without NaN, the second consists of NaN, and each of the others has
    NaN at one of the positions.

    Args:
        input_shape: Channels and then spatial axes, or one axis alone, whose entries count as positions.
    """
    count = max(1, MAX_BATCH_VALUES // prod(input_shape))
    channels = min(1, len(input_shape) - 1)  # axes before the spatial ones
    for axis, size in enumerate(input_shape[channels:]):
        for start in range(0, size, count):
            positions = torch.arange(start, min(start + count, size))
            batch = example(input_shape).double().repeat(len(positions) + 3, *[1] * len(input_shape))
            batch[1] = torch.nan
            for number, position in enumerate(positions.tolist(), 2):
                batch[number].select(axis + channels, position).fill_(torch.nan)
            yield axis, positions, batch

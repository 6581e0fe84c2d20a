"""Models of the same layers that train as one: their parameters along a new first axis.

Shapes: N models, B examples of a batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, ...]
Updates = list[tuple[Tensor, ...]]
"""What a step passes to the metrics, with a first axis of N."""


class Stack(nn.Module, ABC):
    """N models as one. Subclasses create the stacked parameters and call `_take_over`.

    The models' own parameters become views of the stack's, so that an optimiser of each model changes the stack.
    """

    owners: list[tuple[nn.Parameter, ...]]
    """Of each stacked parameter, those of the models."""

    def _take_over(self, owners: Sequence[tuple[nn.Parameter, ...]]) -> None:
        """Make the parameters of the models, in the order of the stack's, views of the stack's."""
        self.owners = list(owners)
        for parameter, parts in zip(self.parameters(), self.owners, strict=True):
            for owner, part in zip(parts, parameter.detach().unbind(0), strict=True):
                owner.data = part

    @abstractmethod
    def training_step(
        self, batch: Batch, generators: Sequence[torch.Generator] | None, *, shared: bool
    ) -> tuple[Tensor, Updates]:
        """Return the sum of the models' losses, and what the step passes to the metrics of each.

        Args:
            batch: Tensors of shape (B, ...), the same for all models; or (N, B, ...), if they are not `shared`.
            generators: What each model draws from, in the order in which it would alone; None to draw for all together.
            shared: Whether all models see the same batch.
        """

    @abstractmethod
    def losses(self) -> Tensor:
        """Return the loss of each model in the last training step, shape (N,)."""

    @abstractmethod
    def evaluation_step(self, batch: Batch) -> Updates:
        """Return what the models pass to their metrics for a batch that all see, without dropout."""

    def hand_over_gradients(self) -> None:
        """Give each model's own parameters their part of the gradients, and forget these here."""
        for parameter, owners in zip(self.parameters(), self.owners, strict=True):
            parts = [None] * len(owners) if parameter.grad is None else parameter.grad.unbind(0)
            for owner, part in zip(owners, parts, strict=True):
                owner.grad = part
            parameter.grad = None

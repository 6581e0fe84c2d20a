"""The training step of stacked models: the gradients of all, and their updates. On a GPU it is one CUDA graph."""

from collections.abc import Sequence

import torch
from torch.optim import Optimizer

from modules.speed import EAGER_STEPS
from modules.stack import Batch, Stack, Updates
from modules.stacked_optimizer import StackedOptimizer
from modules.step_graph import StepGraph, new_graph

FEW_PARAMETERS = 64_000
"""Parameters of a model up to which one update of all is faster on a CPU: it stays in the cache."""


class StackedStep:
    """Trains stacked models on a batch.

    Args:
        stack: The models.
        optimizers: Those of the models.
        device: Where they are.
        captured: Whether the step is captured as a graph after some steps; default: on a GPU. Optimisers that
            `StackedOptimizer` does not take do their steps one by one, and are not captured.
    """

    def __init__(
        self, stack: Stack, optimizers: Sequence[Optimizer], device: torch.device, captured: bool | None = None
    ) -> None:
        self._stack, self._optimizers, self._device = stack, list(optimizers), device
        self._together: StackedOptimizer | None = None
        count = sum(parameter.numel() for parameter in stack.parameters()) / len(optimizers)
        takes = StackedOptimizer.takes(optimizers) and _have_all(stack, optimizers)
        if takes and (device.type == "cuda" or count <= FEW_PARAMETERS):
            self._together = StackedOptimizer(list(stack.parameters()), stack.owners, optimizers)
        self._captured = (device.type == "cuda" if captured is None else captured) and self._together is not None
        self._graph: StepGraph | None = None
        self._steps, self._batch, self._updates = 0, Batch(()), Updates()
        self._largest = 0  # elements of the inputs of a full batch

    def read_numbers(self) -> None:
        """Take over the learning rates that schedules have changed."""
        if self._together is not None:
            self._together.read_numbers()

    def run(self, batch: Batch, generators: Sequence[torch.Generator] | None, *, shared: bool) -> Updates:
        """Train on a batch; return what is passed to the metrics. For the arguments see `Stack.training_step`."""
        self._steps, self._largest = self._steps + 1, max(self._largest, batch[0].numel())
        if not self._captured or self._steps <= EAGER_STEPS:
            return self._step(batch, generators, shared=shared)
        if self._graph is None and batch[0].numel() == self._largest:
            self._batch = tuple(part.clone() for part in batch)
            self._graph = self._capture(generators, shared=shared)
        if self._graph is None or [part.shape for part in batch] != [part.shape for part in self._batch]:
            return self._step(batch, generators, shared=shared)  # the last, smaller batch
        for own, part in zip(self._batch, batch, strict=True):
            own.copy_(part)
        self._graph.replay()
        return [tuple(value.clone() for value in values) for values in self._updates]

    def _capture(self, generators: Sequence[torch.Generator] | None, *, shared: bool) -> StepGraph:
        def step() -> None:
            self._updates = self._step(self._batch, generators, shared=shared)

        graph = new_graph(self._device)
        graph.capture(step)
        return graph

    def _step(self, batch: Batch, generators: Sequence[torch.Generator] | None, *, shared: bool) -> Updates:
        self._stack.zero_grad()
        loss, updates = self._stack.training_step(batch, generators, shared=shared)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._together is not None:
            self._together.step()
            return updates
        self._stack.hand_over_gradients()
        for optimizer in self._optimizers:
            optimizer.step()
        return updates


def _have_all(stack: Stack, optimizers: Sequence[Optimizer]) -> bool:
    """Return whether the optimisers have all parameters of their models that have gradients."""
    trained = [parts for whole, parts in zip(stack.parameters(), stack.owners, strict=True) if whole.requires_grad]
    own = [{id(part) for group in optimizer.param_groups for part in group["params"]} for optimizer in optimizers]
    return all(id(part) in ids for parts in trained for part, ids in zip(parts, own, strict=True))

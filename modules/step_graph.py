"""Training steps that are captured as a CUDA graph, which starts all of a step's kernels at once.

The step is Lightning's own: forward, backward, gradient clipping and optimiser. What a step does in Python happens only
when it is captured.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from modules.metrics import SplitMetrics

Updates = list[tuple[Tensor, Tensor]]


class StepGraph(Protocol):
    """A function without arguments that is run again and again, on the same tensors."""

    def capture(self, step: Callable[[], None]) -> None:
        """Record the function. It does not count as run."""

    def replay(self) -> None:
        """Run the function."""


class CapturedStep:
    """A function whose kernels are captured as a CUDA graph."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, step: Callable[[], None]) -> None:
        torch.cuda.synchronize()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            step()

    def replay(self) -> None:
        self._graph.replay()


class RepeatedStep:
    """A function that is called again, where there are no CUDA graphs."""

    def capture(self, step: Callable[[], None]) -> None:
        self._step = step

    def replay(self) -> None:
        self._step()


def new_graph(device: torch.device) -> StepGraph:
    """Return a CUDA graph on a GPU, and its stand-in elsewhere."""
    return CapturedStep() if device.type == "cuda" else RepeatedStep()


class Step:
    """One captured training step: its batch, its loss and what it tells the metrics.

    Args:
        batch: The batch that it is captured with. Other batches are copied into it.
        metrics: Metrics that the step updates.
        settings: Learning rate and other numbers that are constant in the graph, see `settings`.
    """

    def __init__(self, batch: Sequence[Tensor], metrics: SplitMetrics, settings: tuple[Any, ...]) -> None:
        self.settings = settings
        self._batch, self._metrics = batch, metrics
        self._loss: Tensor | None = None
        self._updates: Updates = []
        self._graph = new_graph(batch[0].device)

    def capture(self, optimizer_step: Callable[[Any], None], closure: Callable[[], Tensor]) -> None:
        """Capture a step that has not been run.

        Args:
            optimizer_step: Makes the step, given its closure.
            closure: Runs forward and backward, and returns the loss.
        """

        def kept_closure() -> Tensor:
            self._loss = closure()
            return self._loss

        def step() -> None:
            self._updates.clear()
            self._metrics.update = self._keep_update  # type: ignore[method-assign]
            try:
                optimizer_step(kept_closure)
            finally:
                del self._metrics.update

        self._graph.capture(step)

    def _keep_update(self, outputs: Tensor, targets: Tensor) -> None:
        self._updates.append((outputs.detach(), targets))

    def takes(self, batch: Sequence[Tensor]) -> bool:
        """Return whether a batch has the shapes of the captured one."""
        return [part.shape for part in batch] == [part.shape for part in self._batch]

    def run(self, batch: Sequence[Tensor]) -> Tensor:
        """Train on a batch; return its loss, which the next step overwrites."""
        for own, part in zip(self._batch, batch, strict=True):
            if own is not part:
                own.copy_(part)
        self._graph.replay()
        for outputs, targets in self._updates:
            self._metrics.update(outputs.clone(), targets.clone())
        assert self._loss is not None
        return self._loss


def settings(optimizer: Optimizer) -> tuple[Any, ...]:
    """Return what of an optimiser is constant in a graph: all numbers that are no tensors, and what is trained."""
    constants: list[Any] = []
    for group in optimizer.param_groups:
        constants += [(key, value) for key, value in group.items() if isinstance(value, int | float | tuple)]
        constants.append(sum(parameter.requires_grad for parameter in group["params"]))
    return tuple(constants)


def make_capturable(optimizer: Optimizer, device: torch.device) -> bool:
    """Prepare an optimiser on a GPU for capture; return whether its learning rate may change without a new capture."""
    changes = True
    for group in optimizer.param_groups:
        if "fused" in group:
            group |= {"fused": True, "foreach": None}
        if "capturable" in group:
            group["capturable"] = True
        if "fused" in group or "capturable" in group:
            group["lr"] = torch.full((), float(group["lr"]), device=device)
        else:
            changes = False
    return changes

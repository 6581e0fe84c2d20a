"""Training steps that are captured as a CUDA graph, which starts all of their kernels at once.

A step is Lightning's own: forward, backward, gradient clipping and optimiser. What a step does in Python happens only
when it is captured.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from modules.metrics import SplitMetrics

Batch = Sequence[Tensor]
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
    """Captured training steps, one or several: their batches, their last loss and what they tell the metrics.

    Args:
        block: The batches of the steps as one, with which they are captured. Others are copied into it.
        metrics: Metrics that the steps update.
        settings: Learning rate and other numbers that are constant in the graph, see `settings`.
        size: Examples of a step.
    """

    def __init__(self, block: Batch, metrics: SplitMetrics, settings: tuple[Any, ...], size: int) -> None:
        self.settings = settings
        self._block, self._metrics, self._size = block, metrics, size
        self._loss: Tensor | None = None
        self._updates: Updates = []
        self._graph = new_graph(block[0].device)

    def capture(
        self, optimizer_step: Callable[[Any], None], closure: Callable[[], Tensor], use: Callable[[Batch], None]
    ) -> None:
        """Capture steps that have not been run.

        Args:
            optimizer_step: Makes a step, given its closure.
            closure: Runs forward and backward, and returns the loss.
            use: Chooses the batch of the next step.
        """

        def kept_closure() -> Tensor:
            self._loss = closure()
            return self._loss

        def steps() -> None:
            self._updates.clear()
            self._metrics.update = self._keep_update  # type: ignore[method-assign]
            try:
                for part in parts(self._block, self._size):
                    use(part)
                    optimizer_step(kept_closure)
            finally:
                del self._metrics.update
            self._join_updates()

        self._graph.capture(steps)

    def _keep_update(self, outputs: Tensor, targets: Tensor) -> None:
        self._updates.append((outputs.detach(), targets))

    def _join_updates(self) -> None:
        """Make one update of those of several steps, if each has made one."""
        if 1 < len(self._updates) == len(self._block[0]) // self._size:
            outputs, targets = zip(*self._updates, strict=True)
            self._updates[:] = [(torch.cat(outputs), torch.cat(targets))]

    def takes(self, block: Batch) -> bool:
        """Return whether a block has the shapes of the captured one."""
        return [part.shape for part in block] == [part.shape for part in self._block]

    def run(self, block: Batch) -> Tensor:
        """Train on a block; return the loss of its last step, which the next block overwrites."""
        for own, part in zip(self._block, block, strict=True):
            if own is not part:
                own.copy_(part)
        self._graph.replay()
        for outputs, targets in self._updates:
            self._metrics.update(outputs.clone(), targets.clone())
        assert self._loss is not None
        return self._loss


def parts(batch: Batch, size: int) -> list[Batch]:
    """Return the parts of a batch with `size` examples each; the last one may be smaller."""
    return [[tensor[start : start + size] for tensor in batch] for start in range(0, len(batch[0]), size)]


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

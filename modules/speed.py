"""Ways to speed up training without changing it. docs/DEVICES.md and docs/PERFORMANCE.md have measurements."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from modules.base import Learner
from modules.capture_rules import why_not_captured, why_not_in_blocks
from modules.lightning_internals import set_closure_loss
from modules.matmul_precision import use_tensor_float32
from modules.step_graph import Batch, Step, make_capturable, parts, settings

EAGER_STEPS = 3
"""Steps before the first capture. They create what libraries and optimisers allocate once."""


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Treat denormal numbers (below about 1e-38) as zero inside the context, if the CPU supports it.

    CPUs are many times slower with denormals, and optimiser averages are full of them if units are dead.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@final
class Compile(Callback):
    """Compile the networks of a module with `torch.compile`, for training only. The first steps are slower.

    The LightningModule itself is not compiled, because its logging would be recompiled repeatedly. Evaluation is not
    compiled either: it has few steps, and probes hook into its layers. Parameter names do not change.

    Args:
        backend: Backend of `torch.compile`.
    """

    def __init__(self, backend: str = "inductor") -> None:
        self._backend = backend
        self._nets: list[nn.Module] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._nets = find_networks(pl_module)
        if not self._nets:
            raise ValueError(f"modules.speed.Compile found no network in {type(pl_module).__name__}")
        for net in self._nets:
            net.forward = partial(_forward, net, net.forward, torch.compile(net.forward, backend=self._backend))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for net in self._nets:
            vars(net).pop("forward", None)  # restores the method of the class
        self._nets = []


def _forward(net: nn.Module, eager: Any, compiled: Any, *inputs: Any) -> Any:
    return (compiled if net.training else eager)(*inputs)


def find_networks(module: nn.Module) -> list[nn.Module]:
    """Return the outermost submodules with parameters; for a ModuleList, which is not callable, its members."""
    found: list[nn.Module] = []
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            found += find_networks(child)
        elif any(True for _ in child.parameters()):
            found.append(child)
    return found


@final
class TensorFloat32(Callback):
    """Multiply float32 matrices on NVIDIA GPUs as TensorFloat-32, with 10 bits of mantissa, while training.

    torch's convolutions do so by default. On other devices, nothing changes.
    """

    def __init__(self) -> None:
        self._restore: Callable[[], None] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.strategy.root_device.type == "cuda":
            self._restore = use_tensor_float32()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._restore is not None:
            self._restore()
            self._restore = None


@final
class CudaGraph(Callback):
    """Capture the training step as a CUDA graph: forward, backward, gradient clipping and optimiser start at once.

    Saves the time in which a GPU waits for Python to start each kernel, most of a small network's step. The first steps
    and smaller batches run as usual, and so does all that is not the step: data, metrics, validation, schedulers and
    callbacks. torch's fused optimiser is used if there is one. Elsewhere than on an NVIDIA GPU, nothing is captured.

    Args:
        steps: Training steps in one graph. With several, they are a block: the loader yields their batches as one, and
            for the Trainer they are one step, after which callbacks are called and schedulers step. Of the block, the
            loss is that of its last step. An attribute `once_per_block = True` of a callback says that this suffices.
    """

    once_per_block = True

    def __init__(self, steps: int = 1) -> None:
        if steps < 1:
            raise ValueError(f"modules.speed.CudaGraph: steps is {steps}; it must be 1 or more")
        self.batches_at_once = steps
        self._batch: Batch = ()
        self._part: Batch = ()
        self._size = self._largest = 0
        self._graphs: dict[int, Step] = {}
        self._steps = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        device = trainer.strategy.root_device
        reason = why_not_captured(trainer, pl_module)
        if reason or (reason := why_not_in_blocks(trainer, pl_module, self.batches_at_once)):
            raise ValueError(_refusal(pl_module, reason))
        per_step = any(config.interval == "step" for config in trainer.lr_scheduler_configs)
        if device.type == "cuda" and not make_capturable(trainer.optimizers[0], device) and per_step:
            name = type(trainer.optimizers[0]).__name__
            raise ValueError(f"modules.speed.CudaGraph: {name} cannot change its learning rate in each step")
        self._graphs, self._steps, self._largest = {}, 0, 0
        pl_module.training_step = partial(self._training_step, pl_module.training_step)  # type: ignore[method-assign]
        pl_module.optimizer_step = partial(self._optimizer_step, pl_module, pl_module.optimizer_step)  # type: ignore[method-assign]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch, self._size = batch, len(batch[0])
        if self.batches_at_once > 1:
            self._size = trainer.datamodule.batch_size  # type: ignore[attr-defined]
        self._largest = max(self._largest, self._size)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for name in ("training_step", "optimizer_step"):
            vars(pl_module).pop(name, None)  # restores the method of the class
        self._batch, self._part, self._graphs = (), (), {}

    def _training_step(self, training_step: Callable[..., Any], batch: Batch, batch_idx: int) -> Any:
        return training_step(self._part, batch_idx)

    def _optimizer_step(
        self,
        module: LightningModule,
        optimizer_step: Callable[..., None],
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer,
        closure: Callable[[], Tensor],
    ) -> None:
        make_step = partial(optimizer_step, epoch, batch_idx, optimizer)
        whole = len(self._batch[0]) // self._size
        end = whole * self._size
        block, rest = [part[:end] for part in self._batch], [part[end:] for part in self._batch]
        graph = self._graphs.get(whole)
        is_smaller = self._size < self._largest  # the last batch of an epoch
        if self._steps < EAGER_STEPS or is_smaller or (graph is not None and not graph.takes(block)):
            self._make_steps(block, make_step, closure)
        elif whole:
            if graph is None or graph.settings != settings(optimizer):
                graph = self._capture(module, block, make_step, closure, settings(optimizer))
            set_closure_loss(closure, graph.run(block))
        self._make_steps(rest, make_step, closure)

    def _make_steps(self, batch: Batch, make_step: Callable[..., None], closure: Callable[[], Tensor]) -> None:
        """Make the steps of a batch as usual."""
        for part in parts(batch, self._size):
            self._use(part)
            make_step(closure)
            self._steps += 1

    def _capture(
        self,
        module: LightningModule,
        block: Batch,
        make_step: Callable[..., None],
        closure: Callable[[], Tensor],
        constants: tuple[Any, ...],
    ) -> Step:
        assert isinstance(module, Learner)
        graph = Step(block, module.train_metrics, constants, self._size)
        try:
            graph.capture(make_step, closure, self._use)
        except RuntimeError as error:
            raise ValueError(_refusal(module, str(error))) from error
        self._graphs[len(block[0]) // self._size] = graph
        return graph

    def _use(self, part: Batch) -> None:
        """Let the module's next training step see a part of its batch."""
        self._part = part


def _refusal(module: LightningModule, reason: str) -> str:
    return f"modules.speed.CudaGraph cannot capture the steps of {type(module).__name__}: {reason}"

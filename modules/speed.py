"""Ways to speed up training without changing it. docs/DEVICES.md and docs/PERFORMANCE.md have measurements."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.optim import Optimizer

from modules.base import Learner
from modules.lightning_internals import set_closure_loss
from modules.step_graph import Step, make_capturable, settings

EAGER_STEPS = 3
"""Steps before the first capture. They create what libraries and optimisers allocate once."""
HOOKS_OF_A_STEP = (
    *("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step"),
    "optimizer_step",
)
"""Hooks that would be called only when a step is captured."""


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

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._before = torch.get_float32_matmul_precision()
        if stage == "fit" and trainer.strategy.root_device.type == "cuda":
            torch.set_float32_matmul_precision("high")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        torch.set_float32_matmul_precision(self._before)


@final
class CudaGraph(Callback):
    """Capture the training step as a CUDA graph: forward, backward, gradient clipping and optimiser start at once.

    Saves the time in which a GPU waits for Python to start each kernel, most of a small network's step. The first steps
    and smaller batches run as usual, and so does all that is not the step: data, metrics, validation, schedulers and
    callbacks. torch's fused optimiser is used if there is one. Elsewhere than on an NVIDIA GPU, nothing is captured.
    """

    def __init__(self) -> None:
        self._batch: Sequence[Tensor] = ()
        self._step: Step | None = None
        self._steps = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        device = trainer.strategy.root_device
        if reason := why_not_captured(trainer, pl_module):
            raise ValueError(_refusal(pl_module, reason))
        per_step = any(config.interval == "step" for config in trainer.lr_scheduler_configs)
        if device.type == "cuda" and not make_capturable(trainer.optimizers[0], device) and per_step:
            name = type(trainer.optimizers[0]).__name__
            raise ValueError(f"modules.speed.CudaGraph: {name} cannot change its learning rate in each step")
        self._step, self._steps = None, 0
        pl_module.optimizer_step = partial(self._optimizer_step, pl_module, pl_module.optimizer_step)  # type: ignore[method-assign]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch = batch

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        vars(pl_module).pop("optimizer_step", None)  # restores the method of the class
        self._batch, self._step = (), None

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
        self._steps += 1
        if self._steps <= EAGER_STEPS or (self._step is not None and not self._step.takes(self._batch)):
            make_step(closure)
            return
        if self._step is None or self._step.settings != settings(optimizer):
            assert isinstance(module, Learner)
            self._step = Step(self._batch, module.train_metrics, settings(optimizer))
            try:
                self._step.capture(make_step, closure)
            except RuntimeError as error:
                raise ValueError(_refusal(module, str(error))) from error
        set_closure_loss(closure, self._step.run(self._batch))


def _refusal(module: LightningModule, reason: str) -> str:
    return f"modules.speed.CudaGraph cannot capture the steps of {type(module).__name__}: {reason}"


def why_not_captured(trainer: Trainer, module: LightningModule) -> str:
    """Return why the steps of a module cannot be captured; "" if nothing is known to prevent it."""
    if not isinstance(module, Learner) or not module.automatic_optimization:
        return "it is not one of litlab's modules, whose step is known"
    if len(module.train_metrics.others):
        return "its training has metrics of other outputs"
    if trainer.world_size > 1:
        return f"{trainer.world_size} processes share them"
    if trainer.accumulate_grad_batches != 1:
        return "trainer.accumulate_grad_batches is not 1"
    plugin = trainer.precision_plugin
    if isinstance(plugin, MixedPrecision) and plugin.scaler is not None:
        return "trainer.precision 16-mixed looks at the gradients; use bf16-mixed"
    owners: list[tuple[Any, type]] = [(module, LightningModule)]
    owners += [(callback, Callback) for callback in trainer.callbacks]  # type: ignore[attr-defined]
    for owner, parent in owners:
        if hooks := [name for name in HOOKS_OF_A_STEP if is_overridden(name, owner, parent=parent)]:
            return f"{type(owner).__name__} needs {hooks[0]} in each step"
    return ""

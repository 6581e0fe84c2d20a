"""Ways to speed up training without changing it. docs/DEVICES.md and docs/PERFORMANCE.md have measurements."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn


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

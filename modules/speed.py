"""What makes the same training faster: docs/DEVICES.md and docs/PERFORMANCE.md say by how much."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn


@contextmanager
def tiny_is_zero() -> Iterator[None]:
    """Take numbers below 1e-38 for zero meanwhile, where the CPU can.

    It is many times slower with them, and an optimiser's averages are full of them where units have died.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@final
class Compile(Callback):
    """Has `torch.compile` translate the networks of a module, for its training; the first steps take the longer for it.

    Not the module itself, whose logging would be translated again and again, and no evaluation, of which there are few,
    and in which probes look into layers. Weights keep their names.

    Args:
        backend: As in `torch.compile`.
    """

    def __init__(self, backend: str = "inductor") -> None:
        self._backend = backend
        self._nets: list[nn.Module] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._nets = networks(pl_module)
        if not self._nets:
            raise ValueError(f"modules.speed.Compile finds no network in {type(pl_module).__name__}")
        for net in self._nets:
            net.forward = partial(_forward, net, net.forward, torch.compile(net.forward, backend=self._backend))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for net in self._nets:
            vars(net).pop("forward", None)  # the class's own is there again
        self._nets = []


def _forward(net: nn.Module, plain: Any, compiled: Any, *inputs: Any) -> Any:
    return (compiled if net.training else plain)(*inputs)


def networks(module: nn.Module) -> list[nn.Module]:
    """The outermost layers that have weights and are called; a list of layers is none, its members are."""
    found: list[nn.Module] = []
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            found += networks(child)
        elif any(True for _ in child.parameters()):
            found.append(child)
    return found

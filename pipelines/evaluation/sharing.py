"""The test of a training on several devices of a machine: each process measures its share of the examples.

The metrics of litlab's modules are added up over all processes. Each example counts once: process r of W takes every
W-th example, starting at the r-th. Rank zero alone logs, and has the outputs of all examples.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, distributed

from datamodules.in_memory import InMemoryDataModule
from modules.base import Learner
from modules.probes import Probe
from pipelines.config.cli import LitlabCLI
from pipelines.runtime.log import logger

LOGGED_BY_LIGHTNING = ("epoch", "step")
HOOKS_OF_A_TEST = (
    *("test_step", "on_test_epoch_start", "on_test_batch_start", "on_test_batch_end"),
    *("on_test_epoch_end", "on_test_end"),
)
"""Hooks of a module that see a part of the examples only, if processes share them."""


@dataclass
class Share:
    """The share of this process.

    Attributes:
        rank: Its rank.
        processes: How many processes share the test.
        device: Its device.
        is_decided: Whether the others know if there is a test.
    """

    rank: int
    processes: int
    device: torch.device
    is_decided: bool = False

    @property
    def trainer_devices(self) -> Any:
        """What `devices` of a trainer is for this device alone."""
        return 1 if self.device.index is None or self.device.type == "cpu" else [self.device.index]

    def agree(self, checkpoint: Path | None = None) -> Path | None:
        """Return the checkpoint that rank zero tests, in every process; None for no test."""
        self.is_decided = True
        chosen: list[Any] = [checkpoint]
        distributed.broadcast_object_list(chosen, src=0, device=self.device if self.device.type == "cuda" else None)
        return None if chosen[0] is None else Path(chosen[0])

    @contextmanager
    def of_data(self, data: InMemoryDataModule) -> Iterator[None]:
        """Let the loaders of a data module yield this share only."""
        data.share = self.rank, self.processes
        try:
            yield
        finally:
            data.share = None

    def gather(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs of all examples, in the order of the data. Every process must call it."""
        parts: list[Any] = [None] * self.processes
        distributed.all_gather_object(parts, dict(outputs))
        return {name: interleave([part[name] for part in parts]) for name in outputs}

    def end(self) -> None:
        """End the connection of the processes; if rank zero has not decided, there is no test."""
        if not self.is_decided:
            self.agree()
        distributed.destroy_process_group()


def share_of_test(
    cli: LitlabCLI, model: LightningModule, data: LightningDataModule | None, trainer: Trainer
) -> Share | None:
    """Return this process's share of the test after a training; None if rank zero tests on its own."""
    if trainer.world_size == 1:
        return None
    if reason := trainer.strategy.broadcast(why_not_shared(cli, model, data, trainer)):  # all do as rank zero
        if trainer.is_global_zero:
            logger.info("The test runs on one device: %s", reason)
        return None
    return Share(trainer.global_rank, trainer.world_size, trainer.strategy.root_device)


def why_not_shared(cli: LitlabCLI, model: LightningModule, data: LightningDataModule | None, trainer: Trainer) -> str:
    """Return why processes cannot share a test, so that its metrics are exact; "" if they can."""
    if not isinstance(data, InMemoryDataModule):
        return "the data are not of one of litlab's data modules"
    if is_overridden("test_dataloader", data, parent=InMemoryDataModule):
        return f"{type(data).__name__} overrides test_dataloader"
    name = type(model).__name__
    if not isinstance(model, Learner):
        return f"{name} is not one of litlab's modules"
    if hooks := [hook for hook in HOOKS_OF_A_TEST if is_overridden(hook, model, parent=Learner)]:
        return f"{name} overrides {hooks[0]}"
    if trainer.num_nodes > 1:
        return "other machines may not have the checkpoint"
    if cli.config.trainer.limit_test_batches not in (None, 1.0):
        return "trainer.limit_test_batches is set"
    if probes := [callback for callback in cli.callbacks if isinstance(callback, Probe)]:
        return f"{type(probes[0]).__name__} looks at all examples"
    if others := sorted(set(trainer.callback_metrics) - {*model.logged_names(), *LOGGED_BY_LIGHTNING}):
        return f"{others[0]} is not one of the metrics of {name}"
    return "" if data.sizes().get("test", 0) >= trainer.world_size else "there are too few examples"


def interleave(parts: list[Tensor]) -> Tensor:
    """Return the examples of all shares in the order of the data, given those of each."""
    whole = parts[0].new_empty((sum(map(len, parts)), *parts[0].shape[1:]))
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole

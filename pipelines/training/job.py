"""Prepare a training: read the data, build the module and the trainer."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from datamodules.base import InMemoryDataModule
from pipelines.checkpoints.callback import BestAndLastCheckpoint
from pipelines.config.cli import LitlabCLI, load_data
from pipelines.config.distributed import check_batch_split
from pipelines.evaluation.decision_regions import DecisionRegions, is_plane
from pipelines.runtime.errors import UserError
from pipelines.training.nan_guard import TerminateOnNaN
from pipelines.training.progress_bar import EpochBar


@dataclass
class Training:
    """A training that is ready to begin: its data are read, its parts are made."""

    cli: LitlabCLI
    data: LightningDataModule
    model: LightningModule
    trainer: Trainer
    keeper: BestAndLastCheckpoint
    regions: list[DecisionRegions]


def prepare_training(
    cli: LitlabCLI, callbacks: Sequence[Callback] = (), *, test: bool = True, like: Training | None = None
) -> Training:
    """Read the data and make all parts, so that what is wrong is said before there is a run.

    Args:
        cli: The configuration.
        callbacks: More callbacks than the configuration names.
        test: Whether to read the test set too.
        like: A job whose data are the same, which need not be read again.

    Raises:
        UserError: Something in the configuration or the data is to be mended.
    """
    data, model = build_parts(cli, test=test) if like is None else _build_like(cli, like)
    if not torch.cuda.is_available():  # Lightning has torch look for NVML; each step of Adam would look again
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    regions = [DecisionRegions(data)] if isinstance(data, InMemoryDataModule) and is_plane(data) else []
    keeper = BestAndLastCheckpoint(getattr(model, "monitor", "val/loss"), getattr(model, "mode", "min"))
    trainer = _trainer(cli, keeper, [*callbacks, *regions])
    check_batch_split(data, model, trainer)
    return Training(cli, data, model, trainer, keeper, regions)


def build_parts(cli: LitlabCLI, *, test: bool) -> tuple[LightningDataModule, LightningModule]:
    """Data that are read, and the module."""
    check_config(cli)
    data, model = cli.build()
    for stage in ("fit", "test") if test else ("fit",):
        load_data(data, stage)
    return data, model


def _build_like(cli: LitlabCLI, like: Training) -> tuple[LightningDataModule, LightningModule]:
    """The data of another job, and the module."""
    check_config(cli)
    _, model = cli.build()
    cli.config_init.data = like.data
    return like.data, model


def check_config(cli: LitlabCLI) -> None:
    """Refuse what would leave no epoch to select, or another one than it seems."""
    trainer = cli.config.trainer
    if trainer.max_epochs == 0 or trainer.limit_val_batches == 0:
        raise UserError("trainer.max_epochs and trainer.limit_val_batches must not be 0: the best epoch is selected")
    if trainer.limit_test_batches == 0:
        raise UserError("trainer.limit_test_batches must not be 0: the selected epoch is tested")
    if any(word in str(trainer.strategy) for word in ("spawn", "fork", "notebook")):
        raise UserError(f"trainer.strategy: {trainer.strategy} leaves what was measured in other processes; use ddp")
    every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
    if every and epochs and 0 < epochs < every and not trainer.fast_dev_run:
        told = f"trainer.check_val_every_n_epoch {every} is more than trainer.max_epochs {epochs}"
        raise UserError(f"{told}: no epoch would be validated")
    if trainer.val_check_interval not in (None, 1.0):
        raise UserError("trainer.val_check_interval: litlab validates once after each epoch")
    if trainer.enable_checkpointing is False:
        raise UserError("trainer.enable_checkpointing: litlab keeps the best and the last epoch")


def _trainer(cli: LitlabCLI, keeper: BestAndLastCheckpoint, more: Sequence[Callback]) -> Trainer:
    bar = [] if cli.config.trainer.enable_progress_bar is False else [EpochBar()]
    others = any(isinstance(callback, Checkpoint) for callback in cli.callbacks)
    callbacks = [keeper, *cli.callbacks, *more, TerminateOnNaN(), *bar]
    return cli.make_trainer(callbacks=callbacks, logger=False, enable_checkpointing=others)

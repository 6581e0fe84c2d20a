"""Prepare a training: read the data, build the module and the trainer."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.model_helpers import is_overridden

from datamodules.in_memory import InMemoryDataModule
from modules.base import Learner
from pipelines.checkpoints.callback import BestAndLastCheckpoint
from pipelines.checkpoints.default_callback import DefaultCheckpoint
from pipelines.checkpoints.intervals import SaveInterval
from pipelines.checkpoints.selection import Selection
from pipelines.config.callbacks import check_callbacks, check_save_interval
from pipelines.config.cli import LitlabCLI
from pipelines.config.data_setup import load_data
from pipelines.config.distributed import check_batch_split
from pipelines.config.error_messages import refusals
from pipelines.evaluation.decision_regions import DecisionRegions, is_plane
from pipelines.evaluation.leak_guard import LeakGuard
from pipelines.evaluation.sharing import Share
from pipelines.runtime.errors import UserError
from pipelines.runtime.hooks import run_after_hook
from pipelines.runtime.log import logger
from pipelines.runtime.text import count
from pipelines.training.learning_rates import LearningRates
from pipelines.training.logging_interval import LoggingInterval
from pipelines.training.monitors import check_monitors
from pipelines.training.nan_guard import TerminateOnNaN
from pipelines.training.progress_bar import EpochBar

SHARDED = ("fsdp", "deepspeed", "modelparallel")  # in the names of strategies
SETS = {"train": "training", "val": "validation", "test": "test"}


@dataclass
class Training:
    """A training that is ready to start.

    Attributes:
        cli: The configuration.
        data: The data module, whose data are loaded; None if the module has its own loaders.
        model: The module, before its first step.
        trainer: Lightning's trainer, without loggers but the one of `trainer.logger: true`.
        loggers: The loggers of the configuration; None stands for litlab's own.
        checkpoint_callback: Saves the best and the last epoch.
        leak_guard: Callback that compares the sets; None if it is off.
        regions: Callback that records decision regions, if the data are points of a plane; else empty.
        share: This process's share of the test; None if rank zero tests on its own.
    """

    cli: LitlabCLI
    data: LightningDataModule | None
    model: LightningModule
    trainer: Trainer
    loggers: list[Logger | None]
    checkpoint_callback: BestAndLastCheckpoint
    leak_guard: LeakGuard | None
    regions: list[DecisionRegions]
    share: Share | None = None


def prepare_training(
    cli: LitlabCLI, callbacks: Sequence[Callback] = (), *, test: bool = True, like: Training | None = None
) -> Training:
    """Load the data and build all parts, so that mistakes are reported before a run is created.

    Args:
        cli: The configuration.
        callbacks: Callbacks in addition to those of the configuration.
        test: Whether to load the test set too.
        like: A training with the same data, whose loaded data are shared.

    Raises:
        UserError: The configuration or the data are invalid.
    """
    data, model = build_parts(cli, test=test) if like is None else _build_like(cli, like)
    if not torch.cuda.is_available():  # Lightning makes torch query NVML, which each step of Adam would repeat
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    regions = [DecisionRegions(data)] if isinstance(data, InMemoryDataModule) and is_plane(data) else []
    config = cli.config
    selection, every = Selection(config.monitor, config.mode, model), SaveInterval.parse(config.checkpoint_every)
    checkpoint_callback = BestAndLastCheckpoint(selection, every)
    checkpoint_callback.position.follow(model if data is None else data)
    leak_guard = LeakGuard() if config.leak_check and like is None else None
    trainer = _build_trainer(cli, checkpoint_callback, [*callbacks, *regions])
    check_monitors(config.monitor, cli.callbacks, model, data)
    _check_sets(data, model, trainer)
    _check_test_weights(cli, model)
    if leak_guard is not None:
        run_after_hook(model, "on_train_start", lambda: leak_guard.before_training(trainer))
    if data is not None and not isinstance(data, InMemoryDataModule):
        data.trainer = trainer
        if trainer.world_size == 1:  # several processes prepare and set up the data when they can wait for each other
            load_data(data, "fit")
    check_batch_split(data, model, trainer, sync_batchnorm=config.trainer.sync_batchnorm)
    return Training(cli, data, model, trainer, cli.loggers(), checkpoint_callback, leak_guard, regions)


def build_parts(cli: LitlabCLI, *, test: bool) -> tuple[LightningDataModule | None, LightningModule]:
    """Build the data module and the module. Data of litlab's own data modules are loaded."""
    check_config(cli)
    data, model = cli.build()
    if isinstance(data, InMemoryDataModule):
        for stage in ("fit", "test") if test else ("fit",):
            load_data(data, stage)
    return data, model


def prepare_model(model: LightningModule) -> None:
    """Let one of litlab's modules load what it starts from, such as published weights, before a run is created.

    Raises:
        UserError: Something is missing and cannot be downloaded.
    """
    if isinstance(model, Learner):
        with refusals(wrapped=False):
            model.load_start()


def _build_like(cli: LitlabCLI, like: Training) -> tuple[LightningDataModule | None, LightningModule]:
    """Build the module, and share the data of another training."""
    check_config(cli)
    _, model = cli.build()
    return like.data, model


def check_config(cli: LitlabCLI) -> None:
    """Reject settings that leave nothing to train, or conflict with how litlab saves what was trained.

    Raises:
        UserError: A setting is rejected; the message names it.
    """
    trainer = cli.config.trainer
    for key in ("max_epochs", "max_steps", "limit_train_batches"):
        if trainer[key] == 0:
            raise UserError(f"trainer.{key} must not be 0: nothing would be trained")
    strategy = str(trainer.strategy)
    if any(word in strategy for word in ("spawn", "fork", "notebook")):
        raise UserError(f"trainer.strategy: {strategy} leaves the metrics in other processes; use ddp")
    if any(word in strategy.lower() for word in SHARDED):
        raise UserError(f"trainer.strategy: {strategy} shards the weights, but litlab saves whole ones; use ddp")
    SaveInterval.parse(cli.config.checkpoint_every)


def _check_sets(data: LightningDataModule | None, model: LightningModule, trainer: Trainer) -> None:
    """Check that sets in memory can be where they should be, and are large enough for the metrics of litlab's modules.

    Raises:
        UserError: There is no GPU to hold them, or a set is too small.
    """
    if not isinstance(data, InMemoryDataModule):
        return
    device = trainer.strategy.root_device.type
    if data.device == "cuda" and device != "cuda":
        raise UserError(f"data.device is cuda, but the training runs on {device}; use auto")
    least = model.min_examples if isinstance(model, Learner) else 1
    for name, size in data.sizes().items():
        if size < least:
            few = f"the {SETS[name]} set has {count(size, 'example')}"
            raise UserError(f"{few}, but the metrics of {type(model).__name__} need {least}: see data.n_{name}")


def _check_test_weights(cli: LitlabCLI, model: LightningModule) -> None:
    """Check that there is a callback whose weights can be tested, if they are to be; a module may have one itself."""
    has_callback = any(isinstance(callback, ModelCheckpoint) for callback in cli.callbacks)
    if cli.config.test_weights == "callback" and not (has_callback or is_overridden("configure_callbacks", model)):
        raise UserError("test_weights is callback, but no ModelCheckpoint is among trainer.callbacks: add one")


def _build_trainer(cli: LitlabCLI, first: BestAndLastCheckpoint, more: Sequence[Callback]) -> Trainer:
    check_callbacks(cli.callbacks)
    check_save_interval(cli.callbacks, SaveInterval.parse(cli.config.checkpoint_every).steps)
    has_bar = any(isinstance(callback, ProgressBar) for callback in cli.callbacks)
    progress_bar = [] if has_bar or cli.config.trainer.enable_progress_bar is False else [EpochBar()]
    has_checkpoint = any(isinstance(callback, Checkpoint) for callback in cli.callbacks)
    default_checkpoint = [] if has_checkpoint else [DefaultCheckpoint(first)]
    callbacks = [first, *cli.callbacks, *more, TerminateOnNaN(), LoggingInterval(), LearningRates(), *progress_bar]
    callbacks += default_checkpoint
    default_logger = cli.config.trainer.logger is True
    trainer = cli.make_trainer(callbacks=callbacks, logger=default_logger, enable_checkpointing=True)
    if cli.config.trainer.enable_checkpointing is False and trainer.is_global_zero:
        logger.warning("trainer.enable_checkpointing: false has no effect: the best and the last checkpoint are saved")
    return trainer

"""Several processes, one for each device, that train together: what they must agree on."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.nn.modules.batchnorm import _BatchNorm

from datamodules.base import InMemoryDataModule
from pipelines.runtime.errors import UserError
from pipelines.tracking.tags import PROCESS_COUNT_TAG

CHECKPOINT_ENV = (
    "LITLAB_START"  # for processes that Lightning starts: the checkpoint that the first one chose, or nothing
)


def cluster_environments() -> list[SLURMEnvironment]:
    """SLURM's, if it started this process: without Lightning's checkpoint of its own at SIGUSR1, and its requeueing.

    A later training in the same folder would begin with that checkpoint.
    """
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def check_batch_split(data: LightningDataModule, model: LightningModule, trainer: Trainer) -> None:
    """Refuse what the processes cannot do together, and say, once, what part of the batch each of them has.

    Raises:
        UserError: They cannot share the batch, or each of them would train for itself.
    """
    processes = trainer.world_size
    started = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    if torch.distributed.is_torchelastic_launched():
        started = int(os.environ["WORLD_SIZE"])
    if started > 1 and started != processes:
        told = f"{started} processes were started, and trainer.devices by trainer.num_nodes is {processes}"
        raise UserError(f"{told}: add --trainer.devices N --trainer.strategy ddp, N of them on each machine")
    if processes == 1 or not isinstance(data, InMemoryDataModule):
        return
    try:
        each = data.per_process_batch_size(processes)
    except ValueError as error:
        raise UserError(str(error)) from error
    if not trainer.is_global_zero:
        return
    print(f"litlab: batch of {data.batch_size} over {processes} processes: {each} each", file=sys.stderr)
    if any(isinstance(layer, _BatchNorm) for layer in model.modules()) and not _is_synced(trainer):
        print(f"litlab: batch norm sees {each} at a time; all with --trainer.sync_batchnorm true", file=sys.stderr)


def _is_synced(trainer: Trainer) -> bool:
    return getattr(trainer.strategy, "_layer_sync", None) is not None


def process_count_tags(trainer: Trainer) -> dict[str, str]:
    """How many processes train a run, where that is more than one."""
    return {PROCESS_COUNT_TAG: str(trainer.world_size)} if trainer.world_size > 1 else {}


def check_process_count(run_id: str, tags: Mapping[str, str], trainer: Trainer) -> None:
    """Each process has generators of its own in a checkpoint, and its own part of each batch.

    Raises:
        UserError: The run was trained by more or fewer processes.
    """
    before, now = int(tags.get(PROCESS_COUNT_TAG, 1)), trainer.world_size
    if before != now:
        raise UserError(
            f"run {run_id} was trained by {before} processes, and there are {now} now: start it as before, "
            "with torchrun or srun if it was"
        )


def broadcast_checkpoint(trainer: Trainer, choose: Callable[[], Path | None] = lambda: None) -> Path | None:
    """The checkpoint to start from: what the first process chooses, told to all others.

    Args:
        trainer: Of this process.
        choose: Called in the first process only.

    Raises:
        UserError: The processes of several machines were started by hand, and cannot be told.
    """
    if trainer.world_size == 1:
        return choose()
    strategy = trainer.strategy
    if CHECKPOINT_ENV in os.environ and not trainer.is_global_zero:
        return Path(os.environ[CHECKPOINT_ENV]) if os.environ[CHECKPOINT_ENV] else None
    environment = getattr(strategy, "cluster_environment", None)
    if environment is not None and environment.creates_processes_externally:  # torchrun, SLURM: all are here already
        strategy.setup_environment()
        return strategy.broadcast(choose() if trainer.is_global_zero else None)
    if not trainer.is_global_zero:
        raise UserError("a training on several machines is resumed with torchrun or by SLURM")
    start = choose()
    os.environ[CHECKPOINT_ENV] = str(start or "")  # the others are about to be started
    return start

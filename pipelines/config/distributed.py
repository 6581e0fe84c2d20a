"""Training with several processes, one per device: what they must agree on."""

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from datamodules.in_memory import InMemoryDataModule
from modules.norms import BATCH_NORMS
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.tracking.tags import PROCESS_COUNT_TAG

CHECKPOINT_ENV = "LITLAB_START"  # tells processes that Lightning starts the checkpoint of rank zero; "" for none


def is_rank_zero() -> bool:
    """Return whether this is the first process of a training, which owns the run and tests."""
    return not rank_zero_only.rank  # type: ignore[attr-defined]


def cluster_environments() -> list[SLURMEnvironment]:
    """Return SLURM's environment, if SLURM started this process, without Lightning's checkpoint and requeue at SIGUSR1.

    A later training in the same folder would start from that checkpoint.
    """
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def check_batch_split(
    data: LightningDataModule | None, model: LightningModule, trainer: Trainer, *, sync_batchnorm: bool
) -> None:
    """Check that the processes can share each batch, and report the share of each, once.

    Raises:
        UserError: The batch size is not a multiple of the processes, or each process would train on its own.
    """
    processes = trainer.world_size
    started = _processes_started()
    if started > 1 and started != processes:
        raise UserError(
            f"{started} processes were started, but trainer.devices times trainer.num_nodes is {processes}: "
            "add --trainer.devices N --trainer.strategy ddp, with N processes per machine"
        )
    if processes == 1 or not isinstance(data, InMemoryDataModule):
        return
    try:
        batch_size = data.per_process_batch_size(processes)
    except ValueError as error:
        raise UserError(str(error)) from error
    if not trainer.is_global_zero:
        return
    logger.info("Batch of %d over %d processes: %d each", data.batch_size, processes, batch_size)
    if any(isinstance(layer, BATCH_NORMS) for layer in model.modules()) and not sync_batchnorm:
        logger.info("Batch norm sees %d examples at a time; all with --trainer.sync_batchnorm true", batch_size)


def _processes_started() -> int:
    """Return how many processes SLURM or torchrun started."""
    if torch.distributed.is_torchelastic_launched():
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))


def draw_seed() -> int:
    """Return a random seed; in the processes of further devices that Lightning starts, that of the first one.

    Raises:
        UserError: SLURM or torchrun started the processes, which cannot communicate yet.
    """
    if _processes_started() > 1:
        raise UserError("seed_everything is false, but the processes of a training need the same seed: give a number")
    return secrets.randbelow(2**32) if is_rank_zero() else int(os.environ["PL_GLOBAL_SEED"])


def process_count_tags(trainer: Trainer) -> dict[str, str]:
    """Return the tag with the number of processes that train a run, if there are several."""
    return {PROCESS_COUNT_TAG: str(trainer.world_size)} if trainer.world_size > 1 else {}


def check_process_count(run_id: str, tags: Mapping[str, str], trainer: Trainer) -> None:
    """Check that a run resumes with as many processes as it had: each has its random state and its part of a batch.

    Raises:
        UserError: The run was trained by more or fewer processes.
    """
    before, now = int(tags.get(PROCESS_COUNT_TAG, 1)), trainer.world_size
    if before != now:
        raise UserError(
            f"run {run_id} was trained by {before} processes, but {now} are running now: start it as before, "
            "with torchrun or srun if you used them"
        )


def broadcast_checkpoint(trainer: Trainer, choose: Callable[[], Path | None] = lambda: None) -> Path | None:
    """Return the checkpoint that rank zero chose, in every process; None to train from the start.

    Args:
        trainer: This process's trainer.
        choose: Chooses the checkpoint; called in rank zero only.

    Raises:
        UserError: The processes of several machines were started by hand and cannot communicate yet.
    """
    if trainer.world_size == 1:
        return choose()
    strategy = trainer.strategy
    if CHECKPOINT_ENV in os.environ and not trainer.is_global_zero:
        return Path(os.environ[CHECKPOINT_ENV]) if os.environ[CHECKPOINT_ENV] else None
    environment = getattr(strategy, "cluster_environment", None)
    if environment is not None and environment.creates_processes_externally:  # by torchrun or SLURM
        strategy.setup_environment()
        return strategy.broadcast(choose() if trainer.is_global_zero else None)
    if not trainer.is_global_zero:
        raise UserError("resume a training on several machines with torchrun or SLURM")
    checkpoint = choose()
    os.environ[CHECKPOINT_ENV] = str(checkpoint or "")  # inherited by the processes that Lightning starts next
    return checkpoint

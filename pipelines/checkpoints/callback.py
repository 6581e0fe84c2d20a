"""Callback that saves the best and the last checkpoint of a run at epoch boundaries.

A checkpoint is saved after an epoch's metrics are logged and its schedulers have stepped, before the next epoch starts.
Lightning's own restart from that point would skip an epoch, so the loop counters are restored here.
"""

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from pipelines.checkpoints.files import BEST, CHECKPOINT_FOLDER, LAST, STATE_KEY, AtomicCheckpointIO, copy_checkpoint
from pipelines.checkpoints.random_state import RandomState, gather_random_states, get_random_state, set_random_state
from pipelines.runtime.lightning_internals import advance_counters, dump_checkpoint, restore_counters
from pipelines.tracking.run import Run


class BestAndLastCheckpoint(Callback):
    """Save `best.ckpt` and `last.ckpt`, and keep the last-but-one as `previous.ckpt` in case `last.ckpt` is damaged.

    Must be the first callback: no other callback may draw random numbers before this one restores the random state.

    Args:
        monitor: Metric that selects the best epoch; of equal epochs the earliest.
        mode: "min" or "max".

    Attributes:
        best_epoch: Index of the best epoch so far, or None if none has been selected.
        seconds: Training time up to the last checkpoint, excluding work that was lost after it.
    """

    def __init__(self, monitor: str, mode: str) -> None:
        self.monitor, self._sign = monitor, 1.0 if mode == "max" else -1.0
        self.best_epoch: int | None = None
        self.seconds = 0.0
        self._best_score = -float("inf")
        self._run: Run | None = None
        self._folder = Path()
        self._saved_epoch = -1
        self._validated_epoch = -1
        self._saving = False
        self._start_time = 0.0
        self._fit_loop_state: dict[str, Any] | None = None
        self._random_state: RandomState | None = None

    @property
    def best(self) -> Path:
        """Path of the best checkpoint."""
        return self._folder / BEST

    def bind_run(self, run: Run) -> None:
        """Set the run whose folder receives the checkpoints. Called in the process that owns the run."""
        self._run, self._folder = run, run.folder / CHECKPOINT_FOLDER

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._folder = trainer.strategy.broadcast(self._folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start_time = time.monotonic() - self.seconds
        if self._fit_loop_state is not None:
            restore_counters(trainer, self._fit_loop_state)
            self._fit_loop_state = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._random_state is not None:
            set_random_state(self._random_state)
            self._random_state = None
        self._save(trainer, trainer.current_epoch - 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._validated_epoch = trainer.current_epoch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, trainer.current_epoch - 1)

    def _save(self, trainer: Trainer, epoch: int) -> None:
        """Save the checkpoint of a complete epoch, unless it is saved already."""
        if epoch <= self._saved_epoch:
            return
        is_best = self._end_epoch(trainer, epoch)
        self._saving = True
        trainer.save_checkpoint(self._folder / LAST)
        self._saving = False
        if is_best and trainer.is_global_zero:
            copy_checkpoint(self._folder / LAST, self.best)

    def _end_epoch(self, trainer: Trainer, epoch: int) -> bool:
        """Record a complete epoch; return whether it is the best so far."""
        self._saved_epoch, self.seconds = epoch, time.monotonic() - self._start_time
        return self._is_best(trainer, epoch)

    def end_external_epoch(self, trainer: Trainer, epoch: int, val_batches: int) -> bool:
        """Record an epoch that did not run in Lightning's loop; return whether it is the best so far.

        Args:
            trainer: Its counters are set as its loop would have left them.
            epoch: Index of the epoch.
            val_batches: Number of validation batches; 0 without validation.
        """
        self._validated_epoch = epoch if val_batches else self._validated_epoch
        advance_counters(trainer, epoch + 1, val_batches)
        return self._end_epoch(trainer, epoch)

    def state(self, trainer: Trainer) -> dict[str, Any]:
        """Return the checkpoint of the last complete epoch, as a copy."""
        self._saving = True
        checkpoint = dump_checkpoint(trainer)
        self._saving = False
        copied: dict[str, Any] = _copy_tensors(checkpoint)
        return copied

    def save_state(self, checkpoint: dict[str, Any], name: str) -> None:
        """Save a checkpoint from `state` in the run's folder."""
        AtomicCheckpointIO().save_checkpoint(checkpoint, self._folder / name)

    def _is_best(self, trainer: Trainer, epoch: int) -> bool:
        score = trainer.callback_metrics.get(self.monitor)
        if self._validated_epoch != epoch or score is None:
            return False
        value = -float("inf") if score.isnan() else self._sign * float(score)
        better = trainer.strategy.reduce_boolean_decision(self.best_epoch is None or value > self._best_score)
        if better:
            self.best_epoch, self._best_score = epoch, value
        return better

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if not self._saving:  # a checkpoint of another callback, at another time
            return
        checkpoint["epoch"] = self._saved_epoch
        checkpoint[STATE_KEY] = {
            "best_epoch": self.best_epoch,
            "best_score": self._best_score,
            "seconds": self.seconds,
            "metrics": self._run.mark() if self._run else 0,
            "random": gather_random_states(trainer, get_random_state()),
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.get(STATE_KEY)
        if trainer.state.fn != "fit" or state is None:
            return
        self.best_epoch, self._best_score = state["best_epoch"], state["best_score"]
        self.seconds, self._saved_epoch = state["seconds"], checkpoint["epoch"]
        states = state["random"]
        if len(states) != trainer.world_size:
            raise ValueError(
                f"the checkpoint was saved by {len(states)} processes, but {trainer.world_size} are running now"
            )
        self._random_state = states[trainer.global_rank]
        self._fit_loop_state = checkpoint.pop("loops")["fit_loop"]


def _copy_tensors(value: Any) -> Any:
    """Copy a nested value with its tensors, which may be views of larger ones."""
    if isinstance(value, dict):
        return {key: _copy_tensors(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy_tensors(item) for item in value]
    return value.clone() if isinstance(value, torch.Tensor) else value

"""Callback that saves the best and the last checkpoint of a run: at epoch boundaries, and on request within epochs.

At a boundary, a checkpoint is saved after an epoch's metrics are logged and its schedulers have stepped, before the
next epoch starts. Lightning's own restart from that point would skip an epoch, so the loop counters are restored here.
Within an epoch, Lightning's restart is used, with the position in the training data (position.py).
"""

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from pipelines.checkpoints.files import BEST, CHECKPOINT_FOLDER, LAST, STATE_KEY, AtomicCheckpointIO, copy_checkpoint
from pipelines.checkpoints.frozen import FrozenParts
from pipelines.checkpoints.intervals import SaveInterval
from pipelines.checkpoints.position import TrainingPosition
from pipelines.checkpoints.random_state import RandomState, gather, get_random_state, set_random_state
from pipelines.checkpoints.selection import Best, Selection, validates_within_epochs
from pipelines.checkpoints.within_epoch import continue_within_epoch, state_within_epoch
from pipelines.runtime.hooks import run_after_hook
from pipelines.runtime.lightning_internals import (
    add_epoch_sums,
    advance_counters,
    batches_done,
    dump_checkpoint,
    end_continued_epoch,
    is_within_epoch,
    optimizer_stepped,
    restore_counters,
    validation_metrics,
)
from pipelines.runtime.log import logger
from pipelines.runtime.metric_names import split_of
from pipelines.runtime.signals import AGREE_EVERY_N_STEPS, StopRequest
from pipelines.tracking.run import Run


class BestAndLastCheckpoint(Callback):
    """Save `best.ckpt` and `last.ckpt`, and keep the last-but-one as `previous.ckpt` in case `last.ckpt` is damaged.

    Must be the first callback: no other callback may draw random numbers before this one restores the random state.

    Args:
        selection: Which metric selects the best validation.
        every: How often to save within an epoch.
        position: Where the training stands in its data.

    Attributes:
        seconds: Training time up to the last checkpoint, excluding work that was lost after it.
        stops_between_steps: Whether SIGTERM and SIGUSR1 end the training after a step, with a checkpoint.
        continues: Whether a loaded checkpoint is one of this run, whose best validation and time count.
    """

    def __init__(
        self, selection: Selection, every: SaveInterval | None = None, position: TrainingPosition | None = None
    ) -> None:
        self.selection, self.position = selection, position or TrainingPosition()
        self.seconds = 0.0
        self.stops_between_steps, self.continues = False, True
        self._every, self._stop = every or SaveInterval(), StopRequest()
        self._run: Run | None = None
        self._folder = Path()
        self._saved_epoch = -1
        self._validated_epoch = -1
        self._saving = False
        self._start_time = 0.0
        self._fit_loop_state: dict[str, Any] | None = None
        self._random_state: RandomState | None = None
        self._interrupted: dict[str, Any] | None = None
        self._epoch_sums: dict[str, Any] = {}
        self._frozen, self._always_asks = FrozenParts(), False

    @property
    def best(self) -> Path:
        """Path of the best checkpoint."""
        return self._folder / BEST

    @property
    def last(self) -> Path:
        """Path of the last checkpoint."""
        return self._folder / LAST

    def bind_run(self, run: Run) -> None:
        """Set the run whose folder receives the checkpoints. Called in the process that owns the run."""
        self._run, self._folder = run, run.folder / CHECKPOINT_FOLDER

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._folder = trainer.strategy.broadcast(self._folder)
        if stage == "fit":  # what other callbacks and the module do in these hooks belongs to the checkpoint
            run_after_hook(pl_module, "on_train_batch_end", lambda: self._after_batch(trainer))
            run_after_hook(pl_module, "on_validation_end", lambda: self._after_validation(trainer))
            run_after_hook(pl_module, "on_train_end", lambda: self._save_epoch(trainer, trainer.current_epoch - 1))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._frozen.begin(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._frozen.restore(pl_module)
        self._always_asks = self._every.is_set or trainer.world_size > 1
        self.selection.find_in_trainer(trainer)
        self._start_time = time.monotonic() - self.seconds
        if self.stops_between_steps:
            self._stop.listen()
        self._every.restart(trainer.global_step)
        within_epochs = self._every.is_set or validates_within_epochs(trainer)
        if within_epochs and self.position.inexact and trainer.is_global_zero:
            logger.warning("The training cannot resume exactly within an epoch: %s", self.position.inexact)
        if self._fit_loop_state is not None:
            restore_counters(trainer, self._fit_loop_state)
            self._fit_loop_state = None
        if self._interrupted is not None:
            self._epoch_sums = continue_within_epoch(trainer, pl_module, self._interrupted)
            self._interrupted = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._interrupted is not None:  # this epoch continues
            return
        if self._random_state is not None:
            set_random_state(self._random_state)
            self.position.set_generators(self._random_state.get("generators", {}))
            self._random_state = None
        self._save_epoch(trainer, trainer.current_epoch - 1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        end_continued_epoch(trainer)

    def _after_batch(self, trainer: Trainer) -> None:
        """Save a checkpoint within the epoch, if it is due or the training is to stop."""
        if self._epoch_sums:
            add_epoch_sums(trainer, self._epoch_sums)
        if not (self._always_asks or self._stop.requested):  # what follows would take 1 % of an epoch at batch 64
            return
        if _is_search(trainer, self):
            return
        stop = self._stop.agreed(trainer)
        if (stop or self._is_due(trainer)) and not trainer.is_last_batch and optimizer_stepped(trainer):
            self._save_step(trainer)
            if stop:
                self._stop.exit()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        self.selection.after_validation(validation_metrics(trainer), sanity_check=trainer.sanity_checking)

    def _after_validation(self, trainer: Trainer) -> None:
        """Save the best checkpoint after a validation within an epoch."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or _is_search(trainer, self):
            return
        if trainer.is_last_batch:
            self._validated_epoch = trainer.current_epoch  # the next boundary selects
            return
        if (best := self._compare(trainer, trainer.current_epoch, validated=True)) is not None:
            best.step = trainer.global_step
            self._save_step(trainer)
            if trainer.is_global_zero:
                copy_checkpoint(self.last, self.best)

    def _save_epoch(self, trainer: Trainer, epoch: int) -> None:
        """Save the checkpoint of a complete epoch, unless it is saved already."""
        if epoch <= self._saved_epoch or _is_search(trainer, self):
            return
        if epoch == 0:
            self.selection.after_epoch(trainer.callback_metrics)
        is_best = self._end_epoch(trainer, epoch)
        self._save(trainer)
        if is_best and trainer.is_global_zero:
            copy_checkpoint(self.last, self.best)
        if self._stop.agreed(trainer, now=True):
            self._stop.exit()

    def _save_step(self, trainer: Trainer) -> None:
        """Save a checkpoint within an epoch."""
        self.seconds = time.monotonic() - self._start_time
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        self._saving = True
        trainer.save_checkpoint(self.last)
        self._saving = False
        self._every.restart(trainer.global_step)

    def _is_due(self, trainer: Trainer) -> bool:
        """Return whether a checkpoint within the epoch is due, in all processes alike."""
        due = self._every.is_due(trainer.global_step)
        if self._every.seconds is None or trainer.world_size == 1:
            return due
        return trainer.global_step % AGREE_EVERY_N_STEPS == 0 and bool(trainer.strategy.broadcast(due))

    def _end_epoch(self, trainer: Trainer, epoch: int) -> bool:
        """Record a complete epoch; return whether it is the best so far."""
        self._saved_epoch, self.seconds = epoch, time.monotonic() - self._start_time
        return self._compare(trainer, epoch, validated=self._validated_epoch == epoch) is not None

    def _compare(self, trainer: Trainer, epoch: int, *, validated: bool) -> Best | None:
        """Return the new best, if the metric has a new value that is better than the best so far."""
        selection, logged = self.selection, trainer.callback_metrics
        if selection.monitor is None or not selection.is_fresh(logged, validated=validated):
            return None
        score = selection.monitor.score(float(logged[selection.monitor.metric]))
        tie = selection.tie_score(logged)
        if not trainer.strategy.reduce_boolean_decision(selection.is_better(score, tie)):
            return None
        metrics = {key: float(logged[key]) for key in selection.logged if key in logged}
        selection.best = Best(epoch, score, metrics=metrics, tie=tie)
        return selection.best

    def end_external_epoch(self, trainer: Trainer, epoch: int, val_batches: int) -> bool:
        """Record an epoch that did not run in Lightning's loop; return whether it is the best so far.

        Args:
            trainer: Its counters are set as its loop would have left them.
            epoch: Index of the epoch.
            val_batches: Number of validation batches; 0 without validation.
        """
        if val_batches:
            self._validated_epoch = epoch
            names = [name for name in trainer.callback_metrics if split_of(name) != "train"]
            self.selection.logged |= dict.fromkeys(names)
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

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._frozen.save(pl_module, checkpoint)
        within_epoch = is_within_epoch(trainer)
        if not (self._saving or within_epoch):  # a checkpoint of another callback, at another time
            return
        seconds = time.monotonic() - self._start_time if within_epoch else self.seconds
        state = {**self.selection.state(), "seconds": seconds, "metrics": self._run.mark() if self._run else 0}
        if within_epoch:
            position = self.position.state(trainer.current_epoch, batches_done(trainer))
            own = {"position": position, **state_within_epoch(trainer, pl_module)}
            state["within_epoch"] = gather(trainer, own)
        else:
            checkpoint["epoch"] = self._saved_epoch
            state["random"] = gather(trainer, {**get_random_state(), "generators": self.position.generators()})
        checkpoint[STATE_KEY] = state

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.get(STATE_KEY)
        self._frozen.load(checkpoint)
        if trainer.state.fn != "fit" or state is None:
            return
        if self.continues:
            self.selection.load_state(state)
            self.seconds = state["seconds"]
        states = state.get("within_epoch") or state["random"]
        if len(states) != trainer.world_size:
            raise ValueError(
                f"the checkpoint was saved by {len(states)} processes, but {trainer.world_size} are running now"
            )
        own = states[trainer.global_rank]
        if "within_epoch" in state:
            self._saved_epoch = checkpoint["epoch"] - 1
            self._interrupted = own
            self.position.restore(own["position"])
        else:
            self._saved_epoch = checkpoint["epoch"]
            self._random_state = own
            self._fit_loop_state = checkpoint.pop("loops")["fit_loop"]


def _is_search(trainer: Trainer, own: Callback) -> bool:
    """Return whether the steps are those of a LearningRateFinder or BatchSizeFinder, which remove all callbacks."""
    return own not in trainer.callbacks  # type: ignore[attr-defined]


def _copy_tensors(value: Any) -> Any:
    """Copy a nested value with its tensors, which may be views of larger ones."""
    if isinstance(value, dict):
        return {key: _copy_tensors(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy_tensors(item) for item in value]
    return value.clone() if isinstance(value, torch.Tensor) else value

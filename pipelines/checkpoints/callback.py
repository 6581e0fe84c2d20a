"""Keeps the checkpoints of the best and of the last epoch, and lets a training go on from one as if nothing had been.

A checkpoint is taken where one epoch has ended in every respect, its metrics logged and all schedules stepped, and the
next has not begun. Lightning's own restart from there would leave out an epoch, so its counters are put back here.
"""

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from pipelines.checkpoints.files import BEST, CHECKPOINT_FOLDER, LAST, STATE_KEY, AtomicCheckpointIO, copy_checkpoint
from pipelines.checkpoints.random_state import RandomState, gather_random_states, get_random_state, set_random_state
from pipelines.tracking.run import Run


class BestAndLastCheckpoint(Callback):
    """The checkpoints of a training: `best.ckpt`, `last.ckpt`, and `previous.ckpt`, which is there for bad times.

    It must be the first of the callbacks: none may draw random numbers before it does.

    Args:
        monitor: The metric that the best epoch is selected by; a tie is for the earlier one.
        mode: "min" or "max".

    Attributes:
        best_epoch: None if no epoch has been selected.
        seconds: How long the training took until the last checkpoint, what was lost after one left out.
    """

    def __init__(self, monitor: str, mode: str) -> None:
        self.monitor, self._sign = monitor, 1.0 if mode == "max" else -1.0
        self.best_epoch: int | None = None
        self.seconds = 0.0
        self._best_score = -float("inf")
        self._run: Run | None = None
        self._folder = Path()
        self._epoch = -1  # of the last checkpoint
        self._validated = -1
        self._saving = False
        self._began = 0.0
        self._loops: dict[str, Any] | None = None
        self._random: RandomState | None = None

    @property
    def best(self) -> Path:
        return self._folder / BEST

    def write_to(self, run: Run) -> None:
        """Say, in the process that has it, which run the checkpoints are of."""
        self._run, self._folder = run, run.folder / CHECKPOINT_FOLDER

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._folder = trainer.strategy.broadcast(self._folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.monotonic() - self.seconds
        if self._loops is not None:
            _set_counters(trainer, self._loops)
            self._loops = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._random is not None:
            set_random_state(self._random)
            self._random = None
        self._keep(trainer, trainer.current_epoch - 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._validated = trainer.current_epoch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._keep(trainer, trainer.current_epoch - 1)

    def _keep(self, trainer: Trainer, epoch: int) -> None:
        """Write the checkpoint of an epoch that has ended, unless it has been written."""
        if epoch <= self._epoch:
            return
        is_best = self._end(trainer, epoch)
        self._saving = True
        trainer.save_checkpoint(self._folder / LAST)
        self._saving = False
        if is_best and trainer.is_global_zero:
            copy_checkpoint(self._folder / LAST, self.best)

    def _end(self, trainer: Trainer, epoch: int) -> bool:
        """Take an epoch for ended; whether it is the best so far."""
        self._epoch, self.seconds = epoch, time.monotonic() - self._began
        return self._is_best(trainer, epoch)

    def end_apart(self, trainer: Trainer, epoch: int, val_batches: int) -> bool:
        """The same of an epoch that did not run in Lightning's loop.

        Args:
            trainer: Whose counters are put to where its loop would have left them.
            epoch: The epoch.
            val_batches: How many its validation had; 0 if there was none.
        """
        self._validated = epoch if val_batches else self._validated
        _count(trainer, epoch + 1, val_batches)
        return self._end(trainer, epoch)

    def content(self, trainer: Trainer) -> dict[str, Any]:
        """The checkpoint of the epoch that has ended, as a value of its own."""
        self._saving = True
        content = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        self._saving = False
        own: dict[str, Any] = _copied(content)
        return own

    def write(self, content: dict[str, Any], name: str) -> None:
        """Put a checkpoint that `content` has made into the run's folder."""
        AtomicCheckpointIO().save_checkpoint(content, self._folder / name)

    def _is_best(self, trainer: Trainer, epoch: int) -> bool:
        score = trainer.callback_metrics.get(self.monitor)
        if self._validated != epoch or score is None:
            return False
        value = -float("inf") if score.isnan() else self._sign * float(score)
        better = trainer.strategy.reduce_boolean_decision(self.best_epoch is None or value > self._best_score)
        if better:
            self.best_epoch, self._best_score = epoch, value
        return better

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if not self._saving:  # another callback's checkpoint, of another moment
            return
        checkpoint["epoch"] = self._epoch
        checkpoint[STATE_KEY] = {
            "best_epoch": self.best_epoch,
            "best_score": self._best_score,
            "seconds": self.seconds,
            "metrics": self._run.journal.mark() if self._run else 0,
            "random": gather_random_states(trainer, get_random_state()),
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.get(STATE_KEY)
        if trainer.state.fn != TrainerFn.FITTING or state is None:
            return
        self.best_epoch, self._best_score = state["best_epoch"], state["best_score"]
        self.seconds, self._epoch = state["seconds"], checkpoint["epoch"]
        states = state["random"]
        if len(states) != trainer.world_size:
            raise ValueError(f"the checkpoint is of {len(states)} processes, and there are {trainer.world_size} now")
        self._random = states[trainer.global_rank]
        self._loops = checkpoint.pop("loops")["fit_loop"]


def _set_counters(trainer: Trainer, state: dict[str, Any]) -> None:
    """Put epoch and step back to where a checkpoint was taken, without Lightning's own restart."""
    fit = trainer.fit_loop
    fit.load_state_dict(state)
    fit.restarting = False
    for loop in (fit, fit.epoch_loop, fit.epoch_loop.val_loop):
        loop.on_iteration_done()
    progress = fit.epoch_progress
    for tracker in (progress.total, progress.current):  # one epoch was about to begin
        tracker.load_state_dict(dict.fromkeys(("ready", "started", "processed"), tracker.completed))


def _count(trainer: Trainer, epochs: int, val_batches: int) -> None:
    """Put Lightning's counters to where its loop would have left them after so many epochs."""
    fit, each, val = trainer.fit_loop, int(trainer.num_training_batches), trainer.fit_loop.epoch_loop.val_loop
    loop, optimizer = fit.epoch_loop, fit.epoch_loop.automatic_optimization.optim_progress.optimizer
    for tracker in (fit.epoch_progress.total, fit.epoch_progress.current):
        _set(tracker, epochs)
    for progress in (loop.batch_progress, optimizer.step, optimizer.zero_grad):
        _set(progress.total, epochs * each)
        _set(progress.current, each)
    for config in trainer.lr_scheduler_configs:
        steps = each if config.interval == "step" else 1
        _set(loop.scheduler_progress.total, epochs * steps)
        _set(loop.scheduler_progress.current, steps)
    _set(val.batch_progress.total, val_batches)
    if val_batches:
        _set(val.batch_progress.current, val_batches)
        val.batch_progress.is_last_batch = True
    loop.batch_progress.is_last_batch, loop._batches_that_stepped = True, epochs * each


def _set(tracker: Any, number: int) -> None:
    for name in vars(tracker):
        setattr(tracker, name, number)


def _copied(value: Any) -> Any:
    """With tensors of their own, which may have been views of something larger."""
    if isinstance(value, dict):
        return {key: _copied(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_copied(part) for part in value]
    return value.clone() if isinstance(value, torch.Tensor) else value

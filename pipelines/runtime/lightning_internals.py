"""The parts of Lightning that litlab uses although they are not documented, tried with 2.6.6.

A later version may change them: tests/pipelines/runtime/test_internals.py fails then, and names the part.

- `trainer._checkpoint_connector.dump_checkpoint`: a checkpoint that is not written to a file, for stacked trainings.
- `trainer.fit_loop` and its progress trackers: resuming at the end of an epoch, where Lightning would skip the
  next one, and epochs that did not run in Lightning's loop.
- `trainer.callback_metrics` is the trainer's own dictionary: metrics of epochs that did not run in Lightning's loop.
- `trainer._logger_connector._first_loop_iter` is None between batches: values of a step have the step as x axis.
- `_log_hyperparams` of its loggers: whether a logger is called by the trainer or by a user's code.
"""

import sys
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import Trainer


def dump_checkpoint(trainer: "Trainer") -> dict[str, Any]:
    """Return the checkpoint that `trainer.save_checkpoint` would write."""
    checkpoint: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    return checkpoint


def set_callback_metrics(trainer: "Trainer", metrics: "Mapping[str, torch.Tensor]") -> None:
    """Add metrics to those that callbacks see."""
    trainer.callback_metrics.update(metrics)


def logs_step(trainer: "Trainer") -> bool:
    """Return whether what is logged now is of a batch and not of an epoch."""
    return trainer._logger_connector._first_loop_iter is not None


def is_called_by_trainer() -> bool:
    """Return whether a logger's `log_hyperparams` is called by the trainer, as it is for `save_hyperparameters`."""
    from lightning.pytorch.loggers.utilities import _log_hyperparams

    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not _log_hyperparams.__code__:
        frame = frame.f_back
    return frame is not None


def restore_counters(trainer: "Trainer", fit_loop_state: dict[str, Any]) -> None:
    """Set the counters to those of a checkpoint, without Lightning's own restart, which would skip an epoch."""
    fit_loop = trainer.fit_loop
    fit_loop.load_state_dict(fit_loop_state)
    fit_loop.restarting = False
    for loop in (fit_loop, fit_loop.epoch_loop, fit_loop.epoch_loop.val_loop):
        loop.on_iteration_done()
    progress = fit_loop.epoch_progress
    for tracker in (progress.total, progress.current):  # the next epoch was about to start
        tracker.load_state_dict(dict.fromkeys(("ready", "started", "processed"), tracker.completed))


def advance_counters(trainer: "Trainer", epochs: int, val_batches: int) -> None:
    """Set the counters as Lightning's loop leaves them after complete epochs.

    Args:
        trainer: Its loop has not run these epochs.
        epochs: Complete epochs.
        val_batches: Batches of the last validation; 0 if the last epoch was not validated.
    """
    fit_loop, steps_per_epoch = trainer.fit_loop, int(trainer.num_training_batches)
    loop, val_loop = fit_loop.epoch_loop, fit_loop.epoch_loop.val_loop
    optimizer = loop.automatic_optimization.optim_progress.optimizer
    for tracker in (fit_loop.epoch_progress.total, fit_loop.epoch_progress.current):
        _set_all(tracker, epochs)
    for progress in (loop.batch_progress, optimizer.step, optimizer.zero_grad):
        _set_all(progress.total, epochs * steps_per_epoch)
        _set_all(progress.current, steps_per_epoch)
    for config in trainer.lr_scheduler_configs:
        steps = steps_per_epoch if config.interval == "step" else 1
        _set_all(loop.scheduler_progress.total, epochs * steps)
        _set_all(loop.scheduler_progress.current, steps)
    _set_all(val_loop.batch_progress.total, val_batches)
    if val_batches:
        _set_all(val_loop.batch_progress.current, val_batches)
        val_loop.batch_progress.is_last_batch = True
    loop.batch_progress.is_last_batch, loop._batches_that_stepped = True, epochs * steps_per_epoch


def _set_all(tracker: Any, number: int) -> None:
    for name in vars(tracker):
        setattr(tracker, name, number)

"""The parts of Lightning that litlab uses although they are not documented, tried with 2.6.6.

A later version may change them: tests/pipelines/runtime/test_internals.py fails then, and names the part.

- `trainer._checkpoint_connector.dump_checkpoint`: a checkpoint that is not written to a file, for stacked trainings.
- `trainer.fit_loop` and its progress trackers: resuming at the end of an epoch, where Lightning would skip the
  next one, and epochs that did not run in Lightning's loop.
- `trainer.callback_metrics` is the trainer's own dictionary: metrics of epochs that did not run in Lightning's loop.
- `trainer._logger_connector._first_loop_iter` is None between batches: values of a step have the step as x axis.
- `trainer._logger_connector.metrics` and `log_metrics`: the values of a step after which a checkpoint was saved.
- `fit_loop.restarting` and `epoch_loop.update_lr_schedulers`: schedulers on plateaus in an epoch that continues.
- `_log_hyperparams` of its loggers: whether a logger is called by the trainer or by a user's code.
- `progress_bar_refresh_rate` of the callback that searches for a learning rate: its bar cannot be switched off.
- `val_loop._results`: which metrics a validation logged, and the torchmetrics objects behind them.
- `epoch_loop._results`: means of an epoch that continues in the middle; which metrics are logged by step.
- `epoch_loop._should_check_val_fx` and `val_loop._restart_stage`: a checkpoint between a step and its validation.
- `call._call_callback_hooks`: the start of an epoch that continues in the middle, where Lightning calls no hooks.
"""

import sys
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import Trainer


_SUMS = ("value", "cumulated_batch_size")  # what an entry of Lightning's results accumulates


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


def hide_search_bar(trainer: "Trainer") -> None:
    """Hide the bar of a search for a learning rate; to be called in `on_train_start`, where else it does nothing."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if hasattr(callback, "progress_bar_refresh_rate"):
            callback.progress_bar_refresh_rate = 0


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


def validation_metrics(trainer: "Trainer") -> dict[str, bool | None]:
    """Return the metrics that the current validation logged; to be called in its last hook.

    Returns:
        By name, whether higher values are better; None if no torchmetrics object tells.
    """
    results = trainer.fit_loop.epoch_loop.val_loop._results
    logged: dict[str, bool | None] = {}
    for result in results.values():
        if not result.has_reset and result.meta.on_epoch:
            higher_is_better = None if result.is_tensor else getattr(result.value, "higher_is_better", None)
            logged |= dict.fromkeys(results._forked_name(result, on_step=False), higher_is_better)
    return logged


def step_metrics(trainer: "Trainer") -> list[str]:
    """Return the metrics that the training has passed to the loggers as values of steps, by `self.log`."""
    found = [result.meta for result in trainer.fit_loop.epoch_loop._results.values()]
    return list(dict.fromkeys(meta.name for meta in found if meta.on_step and meta.logger))


def epoch_sums(trainer: "Trainer") -> "dict[str, dict[str, torch.Tensor]]":
    """Return what `self.log(..., on_epoch=True)` has accumulated in the training epoch so far, by Lightning's key."""
    return {
        key: {name: getattr(result, name) for name in _SUMS if hasattr(result, name)}
        for key, result in trainer.fit_loop.epoch_loop._results.items()
        if result.is_tensor and result.meta.on_epoch and not result.has_reset
    }


def add_epoch_sums(trainer: "Trainer", earlier: "dict[str, dict[str, torch.Tensor]]") -> None:
    """Add what the first part of an epoch accumulated to the second part, and remove from `earlier` what was added.

    Lightning creates an entry when a value is logged. So this is to be called after each batch until nothing is left.
    """
    results = trainer.fit_loop.epoch_loop._results
    for key in [key for key in earlier if key in results]:
        result, before = results[key], earlier.pop(key)
        if result.meta.is_max_reduction or result.meta.is_min_reduction:
            result.value = result.meta.reduce_fx(before["value"].to(result.value), result.value)
            continue
        for name, value in before.items():
            setattr(result, name, value.to(getattr(result, name)) + getattr(result, name))


def batches_done(trainer: "Trainer") -> int:
    """Return how many batches of the epoch have been trained on."""
    return int(_trackers(trainer)[1].processed)


def is_within_epoch(trainer: "Trainer") -> bool:
    """Return whether training stands between two batches of an epoch: after a batch other than the last one."""
    epoch, batch = _trackers(trainer)
    return epoch.processed < epoch.started and batch.ready == batch.processed > 0 and not trainer.is_last_batch


def optimizer_stepped(trainer: "Trainer") -> bool:
    """Return whether the batch that has just ended completed a step, or gradients are still accumulated."""
    return not trainer.fit_loop._should_accumulate()


def validation_is_due(trainer: "Trainer") -> bool:
    """Return whether a validation follows the batch that has just ended."""
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    return bool(trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher))


def continue_epoch(trainer: "Trainer", earlier: "dict[str, dict[str, torch.Tensor]]", *, validate: bool) -> None:
    """Prepare the rest of an epoch after its middle was loaded: to be called in `on_train_start`.

    Nothing that the hooks of the start of an epoch log is recorded a second time.

    Args:
        trainer: Its loops have been restored from a checkpoint in the middle of an epoch.
        earlier: From `epoch_sums`; what the start of the epoch accumulated is removed.
        validate: Whether the validation that followed the last batch is still to be run.
    """
    from lightning.pytorch.loggers.logger import DummyLogger
    from lightning.pytorch.loops.evaluation_loop import RestartStage
    from lightning.pytorch.trainer import call

    epoch_loop = trainer.fit_loop.epoch_loop
    epoch_loop.val_loop.restarting = False
    if validate:
        epoch_loop.val_loop._restart_stage = RestartStage.RESTARTED_MID_EVALUATION
    else:  # the checkpoint was saved before these schedulers made their step
        epoch_loop.update_lr_schedulers("step", update_plateau_schedulers=True)
    loggers, trainer.loggers = trainer.loggers, [DummyLogger()]
    call._call_callback_hooks(trainer, "on_train_epoch_start")
    call._call_lightning_module_hook(trainer, "on_train_epoch_start")
    trainer.loggers = loggers
    for key, result in epoch_loop._results.items():
        for name, value in earlier.pop(key, {}).items():
            setattr(result, name, value.to(getattr(result, name)))


def end_continued_epoch(trainer: "Trainer") -> None:
    """End the restart when a continued epoch ends: else Lightning leaves out the step of schedulers on plateaus."""
    if trainer.fit_loop.restarting:
        trainer.fit_loop.restarting = False


def step_log(trainer: "Trainer") -> dict[str, Any]:
    """Return what Lightning is going to log of the step that has just ended; nothing, if it does not log this step."""
    connector, fit_loop = trainer._logger_connector, trainer.fit_loop
    accumulates = fit_loop._should_accumulate() and trainer.lightning_module.automatic_optimization
    if not logs_step(trainer) or not trainer.training or accumulates or not connector.should_update_logs:
        return {}
    from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars

    logged: dict[str, Any] = convert_tensors_to_scalars(connector.metrics["log"])
    return logged


def log_step(trainer: "Trainer", metrics: Mapping[str, Any]) -> None:
    """Log metrics from `step_log`, as Lightning would have done after the hooks of the step."""
    connector = trainer._logger_connector
    connector._first_loop_iter = False
    connector.log_metrics(dict(metrics))
    connector._first_loop_iter = None


def _trackers(trainer: "Trainer") -> tuple[Any, Any]:
    """Return the progress of the epochs and that of the batches of the epoch."""
    return trainer.fit_loop.epoch_progress.current, trainer.fit_loop.epoch_loop.batch_progress.current

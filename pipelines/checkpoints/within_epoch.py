"""What a checkpoint within an epoch keeps of the epoch so far, and how the epoch continues from it."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from modules.metrics import load_metric_states, metric_states
from pipelines.runtime.lightning_internals import (
    continue_epoch,
    epoch_sums,
    log_step,
    set_callback_metrics,
    step_log,
    validation_is_due,
)


def state_within_epoch(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    """Return what this process needs to continue after the last batch, besides its position in the data."""
    return {
        "metric_states": metric_states(pl_module),
        "epoch_sums": epoch_sums(trainer),
        "step_log": step_log(trainer),
        "callback_metrics": {key: float(value) for key, value in trainer.callback_metrics.items()},
        "validation_due": trainer.training and validation_is_due(trainer),
    }


def continue_within_epoch(trainer: Trainer, pl_module: LightningModule, state: dict[str, Any]) -> dict[str, Any]:
    """Continue the epoch; to be called in `on_train_start`.

    Args:
        trainer: Its loops have been restored from the checkpoint.
        pl_module: The module.
        state: From `state_within_epoch`.

    Returns:
        The sums of the first part of the epoch, which `add_epoch_sums` adds.
    """
    sums: dict[str, Any] = state["epoch_sums"]
    set_callback_metrics(trainer, {key: torch.tensor(value) for key, value in state["callback_metrics"].items()})
    log_step(trainer, state.get("step_log", {}))  # earlier versions did not save it
    continue_epoch(trainer, sums, validate=state["validation_due"])
    load_metric_states(pl_module, state["metric_states"])
    return sums

"""Stop a training whose loss is not finite."""

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

CHECK_EVERY_N_STEPS = 50
"""Steps between two looks at the loss; the last one of an epoch is looked at, too."""


class TerminateOnNaN(Callback):
    """Ends a training whose loss is no longer a number: the weights are lost, and so is the time from then on."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % CHECK_EVERY_N_STEPS == 0 or trainer.is_last_batch:
            loss = float(outputs["loss"]) if isinstance(outputs, Mapping) and "loss" in outputs else 0.0
            if not trainer.strategy.reduce_boolean_decision(math.isfinite(loss)):  # all processes stop together
                raise nan_error(loss, trainer.global_step, trainer.current_epoch)


def nan_error(loss: float, step: int, epoch: int) -> FloatingPointError:
    """What ends a training whose loss is no longer a number, in this process or in another one."""
    said = "no number in another process" if math.isfinite(loss) else loss
    where = f"step {step} (epoch {epoch})"
    return FloatingPointError(f"the training loss is {said} at {where}: try a smaller learning rate")

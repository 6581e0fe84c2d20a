"""Stop a training whose loss is not finite."""

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

CHECK_EVERY_N_STEPS = 50
"""Steps between two checks of the loss; the last step of each epoch is checked too."""


class TerminateOnNaN(Callback):
    """Raise FloatingPointError in all processes when the training loss is NaN or infinite."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % CHECK_EVERY_N_STEPS == 0 or trainer.is_last_batch:
            loss = float(outputs["loss"]) if isinstance(outputs, Mapping) and "loss" in outputs else 0.0
            if not trainer.strategy.reduce_boolean_decision(math.isfinite(loss)):  # all processes stop together
                raise nan_error(loss, trainer.global_step, trainer.current_epoch)


def nan_error(loss: float, step: int, epoch: int) -> FloatingPointError:
    """Return the error for a loss that is not finite, in this process or in another one."""
    value = "not finite in another process" if math.isfinite(loss) else loss
    return FloatingPointError(
        f"the training loss is {value} at step {step} (epoch {epoch}): try a smaller learning rate"
    )

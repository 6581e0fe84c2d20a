"""Stop a training whose loss is not finite."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

CHECK_EVERY_N_STEPS = 50
"""Steps between two checks of the loss; the last step of each epoch is checked too."""


@dataclass(frozen=True)
class _Copy:
    """A loss that is being copied from a GPU, with the step and the epoch that it is of."""

    value: Tensor
    copied: torch.cuda.Event
    step: int
    epoch: int


class TerminateOnNaN(Callback):
    """Raise FloatingPointError in all processes when the training loss is NaN or infinite.

    The loss on a GPU is copied at one check and looked at in the next one, so that no step waits for it; several
    processes must wait for one another.
    """

    once_per_block = True

    def __init__(self) -> None:
        self._copy: _Copy | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % CHECK_EVERY_N_STEPS == 0 or trainer.is_last_batch:
            self._look_at_copy()
            loss = outputs["loss"] if isinstance(outputs, Mapping) and "loss" in outputs else 0.0
            if isinstance(loss, Tensor) and loss.is_cuda and not trainer.is_last_batch and trainer.world_size == 1:
                self._copy = _start_copy(loss, trainer)
            elif not trainer.strategy.reduce_boolean_decision(math.isfinite(loss)):  # all processes stop together
                raise nan_error(float(loss), trainer.global_step, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look_at_copy()  # a training may end within an epoch

    def _look_at_copy(self) -> None:
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.copied.synchronize()
            if not math.isfinite(copy.value):
                raise nan_error(float(copy.value), copy.step, copy.epoch)


def _start_copy(loss: Tensor, trainer: Trainer) -> _Copy:
    value, copied = loss.detach().to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()
    return _Copy(value, copied, trainer.global_step, trainer.current_epoch)


def nan_error(loss: float, step: int, epoch: int) -> FloatingPointError:
    """Return the error for a loss that is not finite, in this process or in another one."""
    value = "not finite in another process" if math.isfinite(loss) else loss
    return FloatingPointError(
        f"the training loss is {value} at step {step} (epoch {epoch}): try a smaller learning rate"
    )

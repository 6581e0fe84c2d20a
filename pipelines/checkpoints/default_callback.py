"""What `trainer.checkpoint_callback` is if the user gave no ModelCheckpoint."""

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from pipelines.checkpoints.callback import BestAndLastCheckpoint


class DefaultCheckpoint(Checkpoint):
    """Paths and score of litlab's checkpoints, with the attributes of Lightning's ModelCheckpoint. It saves nothing.

    Args:
        saved_by: The callback that saves the checkpoints.
    """

    def __init__(self, saved_by: BestAndLastCheckpoint) -> None:
        self._saved_by = saved_by

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the trainer if the module has brought a checkpoint callback, by `configure_callbacks`."""
        if len(trainer.checkpoint_callbacks) > 1:
            others = [callback for callback in trainer.callbacks if callback is not self]  # type: ignore[attr-defined]
            trainer.callbacks = others  # type: ignore[attr-defined]

    @property
    def monitor(self) -> str | None:
        """Name of the metric that selects; None as long as it is unknown."""
        monitor = self._saved_by.selection.monitor
        return monitor.metric if monitor else None

    @property
    def mode(self) -> str:
        """Whether lower ("min") or higher ("max") values are better."""
        monitor = self._saved_by.selection.monitor
        return monitor.mode if monitor else "min"

    @property
    def dirpath(self) -> str:
        """Folder of the checkpoints."""
        return str(self._saved_by.best.parent)

    @property
    def best_model_path(self) -> str:
        """Path of the best checkpoint; empty as long as there is none."""
        best = self._saved_by.best
        return str(best) if best.is_file() else ""

    @property
    def last_model_path(self) -> str:
        """Path of the last checkpoint; empty as long as there is none."""
        last = self._saved_by.last
        return str(last) if last.is_file() else ""

    @property
    def best_model_score(self) -> Tensor | None:
        """Value of the metric at the best validation, a scalar; None before the first one."""
        selection = self._saved_by.selection
        if selection.monitor is None or selection.best is None:
            return None
        return torch.tensor(selection.monitor.value(selection.best.score))

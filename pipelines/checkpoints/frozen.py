"""Restore which parameters are trained: a finetuning callback unfreezes them once, and not again after a restart."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

FROZEN_KEY = "litlab_frozen"


class FrozenParameters(Callback):
    """Save the names of frozen parameters in checkpoints of a training that has any, and restore them.

    Lightning's finetuning callbacks restore the parameter groups of the optimisers, but not `requires_grad`.
    """

    def __init__(self) -> None:
        self._any = False
        self._frozen: list[str] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._any = bool(_frozen(pl_module))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        frozen = _frozen(pl_module)
        if self._any or frozen:
            checkpoint[FROZEN_KEY] = frozen

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._frozen = checkpoint.get(FROZEN_KEY)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._frozen is not None:
            for name, parameter in pl_module.named_parameters():
                parameter.requires_grad_(name not in self._frozen)
            self._any, self._frozen = True, None


def _frozen(module: LightningModule) -> list[str]:
    return [name for name, parameter in module.named_parameters() if not parameter.requires_grad]

"""Restore which parts are trained: a finetuning callback unfreezes them once, and not again after a restart."""

from typing import Any

from lightning.pytorch import LightningModule

FROZEN_KEY, STATISTICS_KEY = "litlab_frozen", "litlab_fixed_statistics"


class FrozenParts:
    """Save the names of frozen parameters, and of norms that keep their statistics, and restore both.

    Lightning's finetuning callbacks restore the parameter groups of the optimisers, but not `requires_grad` and
    `track_running_stats`. Checkpoints of a training without frozen parts are unchanged.
    """

    def __init__(self) -> None:
        self._any = False
        self._frozen: list[str] | None = None
        self._fixed: list[str] = []

    def begin(self, pl_module: LightningModule) -> None:
        """Note whether the training starts with frozen parameters."""
        self._any = bool(_frozen(pl_module))

    def save(self, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the names to a checkpoint."""
        frozen = _frozen(pl_module)
        if self._any or frozen:
            checkpoint[FROZEN_KEY], checkpoint[STATISTICS_KEY] = frozen, _fixed_statistics(pl_module)

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Take the names from a checkpoint."""
        self._frozen, self._fixed = checkpoint.get(FROZEN_KEY), checkpoint.get(STATISTICS_KEY, [])

    def restore(self, pl_module: LightningModule) -> None:
        """Restore what was loaded, after the callbacks have frozen what they freeze at the start."""
        if self._frozen is None:
            return
        for name, parameter in pl_module.named_parameters():
            parameter.requires_grad_(name not in self._frozen)
        for name, module in pl_module.named_modules():
            if hasattr(module, "track_running_stats"):
                module.track_running_stats = name not in self._fixed
        self._any, self._frozen = True, None


def _frozen(module: LightningModule) -> list[str]:
    return [name for name, parameter in module.named_parameters() if not parameter.requires_grad]


def _fixed_statistics(module: LightningModule) -> list[str]:
    return [name for name, part in module.named_modules() if getattr(part, "track_running_stats", True) is False]

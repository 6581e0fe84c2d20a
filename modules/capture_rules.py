"""Which trainings can have their steps captured as a CUDA graph, one at a time or in blocks."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader

from modules.base import Learner
from modules.lightning_internals import saves_within_epochs

HOOKS_OF_A_STEP = (
    *("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step"),
    "optimizer_step",
)
"""Hooks that would be called only when a step is captured."""
HOOKS_AROUND_A_STEP = ("on_train_batch_start", "on_train_batch_end")
"""Hooks that are called once per block."""


def why_not_captured(trainer: Trainer, module: LightningModule) -> str:
    """Return why the steps of a module cannot be captured; "" if nothing is known to prevent it."""
    if not isinstance(module, Learner) or not module.automatic_optimization:
        return "it is not one of litlab's modules, whose step is known"
    if len(module.train_metrics.others):
        return "its training has metrics of other outputs"
    if trainer.world_size > 1:
        return f"{trainer.world_size} processes share them"
    if trainer.accumulate_grad_batches != 1:
        return "trainer.accumulate_grad_batches is not 1"
    plugin = trainer.precision_plugin
    if isinstance(plugin, MixedPrecision) and plugin.scaler is not None:
        return "trainer.precision 16-mixed looks at the gradients; use bf16-mixed"
    owners: list[tuple[Any, type]] = [(module, LightningModule)]
    owners += [(callback, Callback) for callback in trainer.callbacks]  # type: ignore[attr-defined]
    for owner, parent in owners:
        if hooks := [name for name in HOOKS_OF_A_STEP if is_overridden(name, owner, parent=parent)]:
            return f"{type(owner).__name__} needs {hooks[0]} in each step"
    return ""


def why_not_in_blocks(trainer: Trainer, module: LightningModule, steps: int) -> str:
    """Return why a training cannot make several steps at a time; "" if it can, or if `steps` is 1."""
    if steps == 1:
        return ""
    data, loader = trainer.datamodule, trainer.train_dataloader  # type: ignore[attr-defined]
    size = getattr(data, "batch_size", None)
    if size is None or not isinstance(loader, DataLoader) or loader.batch_size != steps * size:
        return f"its data are not of one of litlab's data modules, which load the batches of {steps} steps as one"
    limits = {"fast_dev_run": bool(trainer.fast_dev_run)}  # type: ignore[attr-defined]  # it sets others
    limits |= {"max_steps": trainer.max_steps != -1, "min_steps": trainer.min_steps is not None}
    limits |= {"limit_train_batches": isinstance(trainer.limit_train_batches, int)}
    limits |= {"val_check_interval": isinstance(trainer.val_check_interval, int)}
    if counted := [key for key, is_set in limits.items() if is_set]:
        return f"trainer.{counted[0]} counts steps, but they are made {steps} at a time"
    owners = [module, *(callback for callback in trainer.callbacks if not _suffices_once(callback))]  # type: ignore[attr-defined]
    for owner in owners:
        if hooks := [name for name in HOOKS_AROUND_A_STEP if is_overridden(name, owner)]:
            return f"{type(owner).__name__} has {hooks[0]}, but steps are made {steps} at a time"
    return ""


def _suffices_once(callback: Callback) -> bool:
    """Return whether it suffices to call the hooks of a callback once per block."""
    if isinstance(callback, ModelCheckpoint):
        return not saves_within_epochs(callback)
    return isinstance(callback, ProgressBar) or bool(getattr(callback, "once_per_block", False))

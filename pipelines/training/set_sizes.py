"""Sizes of the sets of any loaders, as far as these know them."""

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from datamodules.in_memory import InMemoryDataModule


def describe_loaders(trainer: Trainer) -> str:
    """Return the sizes of training and validation set, when a training starts; "" if they are unknown or known before.

    The sets of litlab's data modules are known before, and are a line of what is printed before a training.
    """
    if isinstance(getattr(trainer, "datamodule", None), InMemoryDataModule):
        return ""
    training = _examples(trainer.train_dataloader) if trainer.limit_train_batches == 1 else None
    validation = _examples(trainer.val_dataloaders) if trainer.limit_val_batches == 1 else None
    sets = [("training", training, trainer.num_training_batches)]
    sets.append(("validation", validation, sum(trainer.num_val_batches)))
    return ", ".join(part for each in sets if (part := _describe(*each)))


def _describe(split: str, examples: int | None, batches: float) -> str:
    if not math.isfinite(batches) or not batches:
        return ""
    unit = "batch" if batches == 1 else "batches"
    return f"{batches:,} {split} {unit}" if examples is None else f"{examples:,} {split} examples in {batches:,} {unit}"


def _examples(loaders: Any) -> int | None:
    """Return the number of examples of a loader or of several; None if one does not know it."""
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, list | tuple):
        parts = [_examples(loader) for loader in loaders]
        return None if None in parts else sum(part for part in parts if part is not None)
    dataset: Any = loaders.dataset if isinstance(loaders, DataLoader) else None
    try:
        return None if dataset is None else len(dataset)
    except TypeError:  # an iterable data set without a length
        return None

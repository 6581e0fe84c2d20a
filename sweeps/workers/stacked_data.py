"""The batches of trainings that run together."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor

from datamodules.base import ImageDataModule
from datamodules.in_memory import EVAL_BATCH_SIZE, InMemoryDataModule
from datamodules.loading import place
from datamodules.sampling import EpochSampler
from datamodules.sets import TensorSet
from datamodules.tabular import TabularDataModule
from modules.base import Batch

AFTER_TRANSFER = tuple(
    base.on_after_batch_transfer for base in (LightningDataModule, ImageDataModule, TabularDataModule)
)
"""Those of litlab and Lightning, which draw nothing but the augmentation that is configured."""


class Drawing(Protocol):
    """A training with a seed and a random generator."""

    seed: int

    def draw(self, make: Callable[[], Batch]) -> Batch:
        """Call a function that draws from torch's global generator, with the state that this training would have."""


class StackedData:
    """One set of data for all trainings of a stack, on the device that trains.

    Args:
        data: Has been read.
        trainer: Has the device; for the rest see `attach`.
    """

    def __init__(self, data: InMemoryDataModule, trainer: Trainer) -> None:
        self._data, self._device = data, trainer.strategy.root_device
        self.attach(trainer)
        self._held = {part: place(part, data.device, self._device) for part in (data.train_set, data.val_set)}
        configured = getattr(data, "crop_padding", 0) or getattr(data, "flip", False)
        self.is_random = bool(configured) or not _has_known_batches(data)

    def attach(self, trainer: Trainer) -> None:
        """Attach the data module to the trainer of a member that trains on: flips may depend on its epoch."""
        self._trainer = self._data.trainer = trainer

    @property
    def validation_sets(self) -> dict[str, TensorSet]:
        """What a validation measures, by the name of its metrics."""
        sets = {"val_metrics": self._data.val_set}
        return {**sets, "train_end_metrics": self._data.train_set} if self._data.evaluate_train else sets

    def training_batches(self, members: Sequence[Drawing], epoch: int, *, shared: bool) -> Iterator[Batch]:
        """Yield batches: one for all trainings if they are shared, else with a first axis of N."""
        self._trainer.training = True
        examples = self._data.train_set
        orders = torch.stack([self._order(member.seed, epoch) for member in members[: 1 if shared else None]])
        for indices_NB in torch.split(self._to_set(examples, orders), self._data.batch_size, 1):
            if shared:
                yield self._batch(examples, indices_NB[0])
            elif self.is_random and self._device.type == "cpu":
                pairs = zip(members, indices_NB, strict=True)
                parts = [member.draw(partial(self._own, member.seed, examples, rows_B)) for member, rows_B in pairs]
                yield tuple(torch.stack(tensors) for tensors in zip(*parts, strict=True))
            else:
                batch = self._batch(examples, indices_NB.flatten())
                yield tuple(part.view(*indices_NB.shape, *part.shape[1:]) for part in batch)

    def evaluation_batches(self, examples: TensorSet) -> Iterator[Batch]:
        """Yield the batches of a set."""
        self._trainer.validating = True
        for rows_B in torch.split(self._to_set(examples, torch.arange(len(examples))), EVAL_BATCH_SIZE):
            yield self._batch(examples, rows_B)

    def _to_set(self, examples: TensorSet, rows: Tensor) -> Tensor:
        return rows.to(self._held[examples].inputs.device)

    def _own(self, seed: int, examples: TensorSet, rows_B: Tensor) -> Batch:
        os.environ["PL_GLOBAL_SEED"] = str(seed)  # which alternating flips depend on
        return self._batch(examples, rows_B)

    def _batch(self, examples: TensorSet, rows_B: Tensor) -> Batch:
        """Return examples as the model sees them: augmented in training, and normalised."""
        held = self._held[examples]
        batch = held.__getitems__(rows_B) if rows_B.device.type == "cpu" else held.select(rows_B)  # type: ignore[arg-type]
        moved = tuple(part.to(self._device, non_blocking=True) for part in batch)
        made: Batch = self._data.on_after_batch_transfer(moved, 0)
        return made

    def _order(self, seed: int, epoch: int) -> Tensor:
        sampler = EpochSampler(self._data.train_set, shuffle=True, seed=seed)  # type: ignore[arg-type]
        sampler.set_epoch(epoch)
        return sampler.indices()


def _has_known_batches(data: InMemoryDataModule) -> bool:
    """Return whether batches are made as litlab makes them; a subclass may augment them in its own way."""
    augment = getattr(type(data), "augment", ImageDataModule.augment)
    return type(data).on_after_batch_transfer in AFTER_TRANSFER and augment is ImageDataModule.augment

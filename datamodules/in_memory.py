"""Abstract data module of data in memory, fetched in whole batches.

A standard DataLoader fetches whole batches from tensors that are held once.
"""

import copy
from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from datamodules.loading import DEVICES, Device, HeldSets, WholeBatchLoader, batches_at_once
from datamodules.sampling import EpochSampler
from datamodules.sets import Batch, TensorSet

EVAL_BATCH_SIZE = 500


class InMemoryDataModule(LightningDataModule, ABC):
    """Base class of data that fit into memory: training, validation and test set, fetched in whole batches.

    Args:
        batch_size: Training examples per step, over all processes.
        evaluate_train: Whether to evaluate the training set again after each epoch, without dropout and augmentation.
            Logs `train_end/loss` and `train_end/acc`, in addition to the averages over the epoch.
        device: Where the data are held during training: "cpu", "cuda", or "auto": on the GPU if they take less than a
            quarter of its free memory. The order of the examples is the same.
    """

    input_shape: tuple[int, ...]
    """Shape of one example's input."""
    classes: tuple[str, ...] = ()
    """Class names in the order of the labels; empty if the targets are not classes."""
    normalize: nn.Module | None = None
    """Maps raw inputs to model inputs, or None."""
    train_set: TensorSet
    val_set: TensorSet
    test_set: TensorSet
    folded_set: TensorSet | None = None
    """The examples of all folds, training and validation set of each; None without folds."""
    share: tuple[int, int] | None = None
    """Rank of this process and number of processes that share the loaders' examples; None for those of the trainer."""

    def __init__(self, *, batch_size: int = 64, evaluate_train: bool = False, device: Device = "auto") -> None:
        super().__init__()
        require_positive(batch_size=batch_size)
        if device not in DEVICES:
            raise ValueError(f"data.device is {device!r}; it must be one of {', '.join(DEVICES)}")
        self.batch_size, self.evaluate_train, self.device = batch_size, evaluate_train, device
        self._held = HeldSets(device)
        self._placed: tuple[nn.Module, torch.device, nn.Module] | None = None

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @abstractmethod
    def setup(self, stage: str) -> None:
        """Load the sets of a stage: training and validation set for "fit" and "validate", test set for "test"."""

    def describe(self) -> dict[str, Any]:
        """Return the size and SHA-256 of each set that has been loaded."""
        return {
            "source": type(self).__name__,
            "sizes": self.sizes(),
            "sha256": {name: dataset.digest() for name, dataset in self._sets(folds=True).items()},
        }

    def sizes(self) -> dict[str, int]:
        """Return the number of examples of each set that has been loaded: "train", "val", "test"."""
        return {name: len(dataset) for name, dataset in self._sets().items()}

    def _sets(self, *, folds: bool = False) -> dict[str, TensorSet]:
        sets = {name: vars(self)[f"{name}_set"] for name in ("train", "val", "test") if f"{name}_set" in vars(self)}
        return sets | ({"folds": self.folded_set} if folds and self.folded_set is not None else {})

    def derived_arguments(self) -> dict[str, Any]:
        """Return the arguments that the data determine if they are not given, with these values."""
        return {}

    def per_process_batch_size(self, world_size: int) -> int:
        """Return the number of training examples per step and process.

        Raises:
            ValueError: The batch size is not a multiple of the number of processes, or the training or validation set
                has fewer examples than there are processes.
        """
        if self.batch_size % world_size:
            prefix = f"data.batch_size is {self.batch_size}, for all processes together"
            raise ValueError(f"{prefix}; it must be a multiple of their number, which is {world_size}")
        for name, dataset in (("training", self.train_set), ("validation", self.val_set)):
            if len(dataset) < world_size:
                raise ValueError(f"{len(dataset)} {name} examples cannot be shared by {world_size} processes")
        return self.batch_size // world_size

    def train_dataloader(self) -> DataLoader[Batch]:
        batch_size = self.per_process_batch_size(self._rank_and_world_size["world_size"])
        return self._loader(self.train_set, batch_size * batches_at_once(self.trainer), shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        val = self._loader(self.val_set, EVAL_BATCH_SIZE)
        fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        if not (self.evaluate_train and fitting):
            return val
        train = self._loader(self.train_set, EVAL_BATCH_SIZE)
        train.generator = torch.Generator()  # without it, each start of the loader would advance torch's global stream
        return [val, train]

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.test_set, EVAL_BATCH_SIZE)

    def _loader(self, dataset: Dataset[Batch], batch_size: int, shuffle: bool = False) -> DataLoader[Batch]:
        sampler = self._sampler(dataset, shuffle)
        loader = WholeBatchLoader(dataset, batch_size=batch_size, sampler=sampler, collate_fn=lambda batch: batch)
        if self.trainer is not None:
            self._held.attach(loader, self.trainer)
        return loader

    def teardown(self, stage: str) -> None:
        """Free what is held on a GPU."""
        self._held.clear()

    def normalized(self, inputs: Tensor) -> Tensor:
        """Normalise a batch of raw inputs on its device; fit the statistics first if no checkpoint has them."""
        if self.normalize is None:
            self.setup("fit")
        assert self.normalize is not None
        return cast("Tensor", self._normalize_on(self.normalize, inputs.device)(inputs))

    def _normalize_on(self, normalize: nn.Module, device: torch.device) -> nn.Module:
        """Return a copy on a device. The original stays where it is: figures and exports use it on the CPU."""
        if device.type == "cpu":
            return normalize
        if self._placed is None or self._placed[0] is not normalize or self._placed[1] != device:
            self._placed = normalize, device, copy.deepcopy(normalize).to(device)
        return self._placed[2]

    def _sampler(self, dataset: Dataset[Batch], shuffle: bool) -> EpochSampler:
        return EpochSampler(cast("Dataset[int]", dataset), shuffle=shuffle, **self._rank_and_world_size)

    @property
    def _rank_and_world_size(self) -> dict[str, int]:
        """Rank of this process and number of processes, as arguments of `EpochSampler`."""
        if self.share is not None:
            return {"rank": self.share[0], "world_size": self.share[1]}
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}


def require_positive(**values: int | None) -> None:
    """Require every number to be at least 1; None is accepted.

    Raises:
        ValueError: One of them is below 1. The message names it.
    """
    for name, value in values.items():
        if value is not None and value < 1:
            raise ValueError(f"data.{name} is {value}; it must be 1 or more")

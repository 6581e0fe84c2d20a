"""The abstract in-memory DataModule: split, subset, whole batches, statistics.

Images are held once as uint8 tensors. A standard DataLoader fetches whole batches from them; standardisation and
augmentation run on the batch, on the device, in `on_after_batch_transfer`.

Shapes: N examples of a set, B of a batch, C channels, H rows, W columns.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.augment import random_crop, random_flip
from datamodules.images import read_image
from datamodules.normalize import Normalize, channel_statistics
from datamodules.sampling import EpochSampler

EVAL_BATCH_SIZE = 500

Batch = tuple[Tensor, ...]


class ImageSet(Dataset[Batch]):
    """Some examples of an image collection, by index; the images themselves are shared, not copied.

    Args:
        images_NCHW: uint8 pixels, 0 to 255.
        labels_N: int64 classes.
        indices: The examples that belong to this set; all of them by default.
    """

    def __init__(self, images_NCHW: Tensor, labels_N: Tensor, indices: Tensor | None = None) -> None:
        assert images_NCHW.dtype == torch.uint8
        assert len(images_NCHW) == len(labels_N)
        self._images_NCHW, self._labels_N = images_NCHW, labels_N
        self._indices = torch.arange(len(labels_N)) if indices is None else indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Batch:
        where = self._indices[index]
        return self._images_NCHW[where], self._labels_N[where]

    def __getitems__(self, batch: Sequence[int]) -> Batch:
        where = self._indices[torch.from_numpy(np.asarray(batch))]  # torch alone is five times slower on a list
        return self._images_NCHW.index_select(0, where), self._labels_N.index_select(0, where)

    @property
    def images_NCHW(self) -> Tensor:
        """uint8 pixels of this set, in its order."""
        return self._images_NCHW[self._indices]

    @property
    def labels_N(self) -> Tensor:
        """int64 classes of this set, in its order."""
        return self._labels_N[self._indices]

    def digest(self) -> str:
        """SHA-256 of the set's shape, pixels and labels, in its order."""
        state = hashlib.sha256(str(tuple(self.images_NCHW.shape)).encode())
        state.update(self.images_NCHW.numpy().tobytes())
        state.update(self.labels_N.numpy().tobytes())
        return state.hexdigest()


class ImageFiles(Dataset[Batch]):
    """Image files, decoded to one shape when they are asked for; they have no labels.

    Args:
        paths: The files.
        shape: Channels, rows, columns.
        invert: Turn dark on light into light on dark.
    """

    def __init__(self, paths: Sequence[Path], shape: tuple[int, int, int], *, invert: bool = False) -> None:
        self._paths, self._shape, self._invert = paths, shape, invert

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Batch:
        pixels_CHW = read_image(self._paths[index], self._shape)
        return (255 - pixels_CHW if self._invert else pixels_CHW,)

    def __getitems__(self, batch: Sequence[int]) -> Batch:
        return (torch.stack([self[index][0] for index in batch]),)


def _already_a_batch(batch: Any) -> Any:
    return batch


class InMemoryDataModule(LightningDataModule, ABC):
    """Labelled images that fit into memory, with an official test set that is only ever the test set.

    The validation set is a stratified, seeded part of the official training images. It depends neither on `n_train` nor
    on the seed of the run, so that runs can be compared pair by pair.

    Args:
        n_val: Number of validation examples, stratified, taken from the official training set.
        n_train: Number of training examples, stratified, from what validation leaves; None takes all of them.
        split_seed: Chooses which examples go to validation and to the subset.
        batch_size: Training examples per step and process.
        normalization: "standard" subtracts the mean and divides by the standard deviation of each channel, computed on
            the training examples in use; "unit" only scales pixels to [0, 1].
        crop_padding: Random crop with this many pixels of padding, in training only; 0 for none.
        flip: Random horizontal flip, in training only.
    """

    input_shape: tuple[int, int, int]
    """Channels, rows, columns."""
    classes: tuple[str, ...]

    def __init__(
        self,
        *,
        n_val: int,
        n_train: int | None = None,
        split_seed: int = 0,
        batch_size: int = 64,
        normalization: Literal["standard", "unit"] = "standard",
        crop_padding: int = 0,
        flip: bool = False,
    ) -> None:
        super().__init__()
        _require_positive(batch_size=batch_size, n_val=n_val, n_train=n_train)
        if crop_padding < 0:
            raise ValueError(f"data.crop_padding is {crop_padding}; it must be 0 or more")
        self.batch_size, self.n_val, self.n_train, self.split_seed = batch_size, n_val, n_train, split_seed
        self.normalization, self.crop_padding, self.flip = normalization, crop_padding, flip
        self.normalize: Normalize | None = None
        """Set by `setup("fit")` or by a checkpoint."""

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @abstractmethod
    def load(self, *, train: bool) -> tuple[Tensor, Tensor]:
        """The official training or test set: uint8 pixels of shape (N, *input_shape) and int64 labels of shape (N,).

        Raises:
            ValueError: A file is corrupt; the message names the file and what is wrong with it.
            FileNotFoundError: A file is missing.
        """

    def download(self) -> None:
        """Fetch what is missing, where there is something to fetch.

        Raises:
            FileNotFoundError: A file is missing and cannot be fetched.
        """

    def prepare_data(self) -> None:
        """Download what is missing; a prediction needs none of it."""
        if self.trainer is None or not self.trainer.predicting:
            self.download()

    def setup(self, stage: str) -> None:
        """Load what the stage needs, once: training and validation for "fit" and "validate", test for "test"."""
        if stage in ("fit", "validate") and not hasattr(self, "train_set"):
            images, labels = self.load(train=True)
            train, val = stratified_split(labels, n_val=self.n_val, n_train=self.n_train, seed=self.split_seed)
            self.train_set, self.val_set = ImageSet(images, labels, train), ImageSet(images, labels, val)
            self.normalize = self.normalize or Normalize(*self._statistics())
        if stage == "test" and not hasattr(self, "test_set"):
            self.test_set = ImageSet(*self.load(train=False))

    def _statistics(self) -> tuple[Tensor, Tensor]:
        if self.normalization == "unit":
            channels = self.input_shape[0]
            return torch.zeros(channels), torch.ones(channels)
        return channel_statistics(self.train_set.images_NCHW)

    def card(self) -> dict[str, Any]:
        """What this data is: sizes, SHA-256 of each set, mean and standard deviation in use (per channel, of 1.0)."""
        assert self.normalize is not None
        sets = {"train": self.train_set, "val": self.val_set, "test": self.test_set}
        return {
            "source": type(self).__name__,
            "sizes": {name: len(part) for name, part in sets.items()},
            "sha256": {name: part.digest() for name, part in sets.items()},
            "mean": self.normalize.mean,
            "std": self.normalize.std,
        }

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.train_set, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.val_set, EVAL_BATCH_SIZE)

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.test_set, EVAL_BATCH_SIZE)

    def predict_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self._predict_set, EVAL_BATCH_SIZE)

    def predict_on(self, paths: Sequence[Path], *, invert: bool = False) -> None:
        """Choose the image files that `Trainer.predict` reads; `invert` turns dark on light into light on dark."""
        self._predict_set = ImageFiles(paths, self.input_shape, invert=invert)

    def _loader(self, dataset: Dataset[Batch], batch_size: int, shuffle: bool = False) -> DataLoader[Batch]:
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        sampler = EpochSampler(cast("Dataset[int]", dataset), shuffle=shuffle, rank=rank, world_size=world_size)
        return DataLoader(dataset, batch_size=batch_size, sampler=sampler, collate_fn=_already_a_batch)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment (in training) and normalise a batch of uint8 pixels, on the device that it is on."""
        images_BCHW, *rest = batch
        if self.trainer is not None and self.trainer.training:
            images_BCHW = self.augment(images_BCHW)
        if self.normalize is None:  # neither trained here nor loaded from a checkpoint
            self.setup("fit")
        assert self.normalize is not None
        return self.normalize.to(images_BCHW.device)(images_BCHW), *rest

    def augment(self, images_BCHW: Tensor) -> Tensor:
        """Random crop and flip of uint8 pixels, as configured."""
        if self.crop_padding:
            images_BCHW = random_crop(images_BCHW, self.crop_padding)
        return random_flip(images_BCHW) if self.flip else images_BCHW

    def state_dict(self) -> dict[str, Any]:
        """The statistics travel with the checkpoint, so that a trained model needs no training data to be used."""
        assert self.normalize is not None
        return {"mean": self.normalize.mean, "std": self.normalize.std}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.normalize = Normalize(torch.tensor(state_dict["mean"]), torch.tensor(state_dict["std"]))


def stratified_split(labels_N: Tensor, *, n_val: int, n_train: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Disjoint training and validation indices, each with the class proportions of `labels_N`.

    Raises:
        ValueError: There are not enough examples for the sizes asked for.
    """
    from sklearn.model_selection import train_test_split

    n, num_classes = len(labels_N), len(torch.unique(labels_N))
    if n_val + (n_train or 1) > n:
        raise ValueError(f"n_val={n_val} and n_train={n_train} ask for more than the {n} examples that there are")
    if min(n_val, n_train or n - n_val) < num_classes:
        raise ValueError(
            f"n_val={n_val} and n_train={n_train} of {n} examples leave one part with fewer than {num_classes}, "
            "one per class"
        )
    labels = labels_N.numpy()
    rest, val = train_test_split(range(n), test_size=n_val, stratify=labels, random_state=seed)
    if n_train is not None and n_train < len(rest):
        rest = _stratified_subset(rest, labels, n_train, seed)
    return torch.tensor(sorted(rest)), torch.tensor(sorted(val))


def _stratified_subset(indices: list[int], labels: Any, size: int, seed: int) -> list[int]:
    from sklearn.model_selection import train_test_split

    left_over = len(indices) - size
    if left_over < len(set(labels[indices])):  # too few to stratify what is left: any of them may go
        return list(train_test_split(indices, train_size=size, random_state=seed)[0])
    return list(train_test_split(indices, train_size=size, stratify=labels[indices], random_state=seed)[0])


def _require_positive(**values: int | None) -> None:
    for name, value in values.items():
        if value is not None and value < 1:
            raise ValueError(f"data.{name} is {value}; it must be 1 or more")

"""The abstract in-memory DataModules: whole batches of any tensors, and of images with split, subset and statistics.

Data are held once, as tensors; images as uint8. A standard DataLoader fetches whole batches from them; augmentation and
normalisation run on the batch, on the device, in `on_after_batch_transfer`.

Shapes: N examples of a set, B of a batch, C channels, H rows, W columns.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from datamodules.augment import random_crop, random_flip
from datamodules.normalize import Normalize, Whiten, channel_statistics, fit_zca, identity
from datamodules.sampling import EpochSampler
from datamodules.sets import Batch, ImageFiles, ImageSet, TensorSet
from datamodules.split import stratified_split

EVAL_BATCH_SIZE = 500


def _already_a_batch(batch: Any) -> Any:
    return batch


class InMemoryDataModule(LightningDataModule, ABC):
    """Examples that fit into memory: training, validation and test set, fetched by whole batches.

    Args:
        batch_size: Training examples per step, of all processes together.
        evaluate_train: Measure the training set again after each epoch, with the weights of its end, dropout off and
            nothing augmented: `train_end/loss` and `train_end/acc`, beside the averages over the epoch.
    """

    input_shape: tuple[int, ...]
    """Shape of one example's input."""
    classes: tuple[str, ...] = ()
    """Names, in the order of the labels; none where targets are no classes."""
    normalize: nn.Module | None = None
    """What stands between the data as they are and the model."""
    train_set: TensorSet
    val_set: TensorSet
    test_set: TensorSet

    def __init__(self, *, batch_size: int = 64, evaluate_train: bool = False) -> None:
        super().__init__()
        require_positive(batch_size=batch_size)
        self.batch_size, self.evaluate_train = batch_size, evaluate_train

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @abstractmethod
    def setup(self, stage: str) -> None:
        """Load what the stage needs, once: training and validation for "fit" and "validate", test for "test"."""

    def card(self) -> dict[str, Any]:
        """What this data is: sizes and SHA-256 of each set that has been read."""
        sets = {name: vars(self)[f"{name}_set"] for name in ("train", "val", "test") if f"{name}_set" in vars(self)}
        return {
            "source": type(self).__name__,
            "sizes": {name: len(part) for name, part in sets.items()},
            "sha256": {name: part.digest() for name, part in sets.items()},
        }

    def share(self, processes: int) -> int:
        """Training examples per step of each process.

        Raises:
            ValueError: The batch cannot be divided by their number, or a set has fewer examples than there are
                processes.
        """
        if self.batch_size % processes:
            told = f"data.batch_size is {self.batch_size}, for all processes together"
            raise ValueError(f"{told}; it must be a multiple of their number, which is {processes}")
        for name, part in (("training", self.train_set), ("validation", self.val_set)):
            if len(part) < processes:
                raise ValueError(f"{len(part)} {name} examples cannot be shared by {processes} processes")
        return self.batch_size // processes

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.train_set, self.share(self._place["world_size"]), shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        val = self._loader(self.val_set, EVAL_BATCH_SIZE)
        fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        if not (self.evaluate_train and fitting):
            return val
        again = self._loader(self.train_set, EVAL_BATCH_SIZE)
        again.generator = torch.Generator()  # a loader draws from torch's own at each start, and would change dropout
        return [val, again]

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.test_set, EVAL_BATCH_SIZE)

    def _loader(self, dataset: Dataset[Batch], batch_size: int, shuffle: bool = False) -> DataLoader[Batch]:
        sampler = self._sampler(dataset, shuffle)
        return DataLoader(dataset, batch_size=batch_size, sampler=sampler, collate_fn=_already_a_batch)

    def _sampler(self, dataset: Dataset[Batch], shuffle: bool) -> EpochSampler:
        return EpochSampler(cast("Dataset[int]", dataset), shuffle=shuffle, **self._place)

    @property
    def _place(self) -> dict[str, int]:
        """This process's number, and how many there are."""
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}


class DrawnDataModule(InMemoryDataModule):
    """Examples that are drawn by seed; the three sets independently of one another.

    Args:
        n_train: Number of training examples.
        n_val: Number of validation examples.
        n_test: Number of test examples.
        seed: Draws the examples.
        **loading: Batch size, and whether the training set is measured again, of `InMemoryDataModule`.
    """

    def __init__(self, *, n_train: int, n_val: int, n_test: int, seed: int, **loading: Any) -> None:
        super().__init__(**loading)
        require_positive(n_train=n_train, n_val=n_val, n_test=n_test)
        self.n_train, self.n_val, self.n_test, self.seed = n_train, n_val, n_test, seed

    def setup(self, stage: str) -> None:
        if stage in ("fit", "validate"):
            self.train_set, self.val_set = self.draw(self.n_train, 0), self.draw(self.n_val, 1)
        if stage == "test":
            self.test_set = self.draw(self.n_test, 2)

    @abstractmethod
    def draw(self, size: int, stream: int) -> TensorSet:
        """As many examples, determined by the seed and the number of the stream."""


class ImageDataModule(InMemoryDataModule):
    """Labelled images, with an official test set that is only ever the test set.

    The validation set is a stratified, seeded part of the official training images. It depends neither on `n_train` nor
    on the seed of the run, so that runs can be compared pair by pair.

    Args:
        n_val: Number of validation examples, stratified, taken from the official training set.
        n_train: Number of training examples, stratified, from what validation leaves; None takes all of them.
        split_seed: Chooses which examples go to validation and to the subset.
        normalization: "standard" subtracts the mean and divides by the standard deviation of each channel; "zca"
            whitens (decorrelates) all pixels; both are fitted on the training examples in use. "unit" only scales
            pixels to [0, 1].
        crop_padding: Random crop with this many pixels of padding, in training only; 0 for none.
        flip: Random horizontal flip, in training only.
        **loading: Batch size, and whether the training set is measured again, of `InMemoryDataModule`.
    """

    input_shape: tuple[int, int, int]
    """Channels, rows, columns."""
    normalize: Normalize | Whiten | None
    """Set by `setup("fit")` or by a checkpoint."""

    def __init__(
        self,
        *,
        n_val: int,
        n_train: int | None = None,
        split_seed: int = 0,
        normalization: Literal["standard", "unit", "zca"] = "standard",
        crop_padding: int = 0,
        flip: bool = False,
        **loading: Any,
    ) -> None:
        super().__init__(**loading)
        require_positive(n_val=n_val, n_train=n_train)
        if crop_padding < 0:
            raise ValueError(f"data.crop_padding is {crop_padding}; it must be 0 or more")
        self.n_val, self.n_train, self.split_seed = n_val, n_train, split_seed
        self.normalization, self.crop_padding, self.flip = normalization, crop_padding, flip
        self.normalize = None

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
        if stage in ("fit", "validate") and not hasattr(self, "train_set"):
            images, labels = self.load(train=True)
            train, val = self.split(labels)
            self.train_set, self.val_set = self.make_sets(images, labels, train, val)
            self.normalize = self.normalize or self._fit_normalization(ImageSet(images, labels, train).images_NCHW)
        if stage == "test" and not hasattr(self, "test_set"):
            self.test_set = self.make_test_set(*self.load(train=False))

    def split(self, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the training and of the validation examples."""
        return stratified_split(labels_N, n_val=self.n_val, n_train=self.n_train, seed=self.split_seed)

    def make_sets(self, images: Tensor, labels: Tensor, train: Tensor, val: Tensor) -> tuple[TensorSet, TensorSet]:
        """Training and validation set, of these images and indices."""
        return ImageSet(images, labels, train), ImageSet(images, labels, val)

    def make_test_set(self, images: Tensor, labels: Tensor) -> TensorSet:
        """The test set, of these images."""
        return ImageSet(images, labels)

    def _fit_normalization(self, images_NCHW: Tensor) -> Normalize | Whiten:
        if self.normalization == "unit":
            return identity(self.input_shape[0])
        if self.normalization == "zca":
            return fit_zca(images_NCHW)
        return Normalize(*channel_statistics(images_NCHW))

    def card(self) -> dict[str, Any]:
        """What this data is: sizes and SHA-256 of each set, and the statistics of the training images in use."""
        assert self.normalize is not None
        return {**super().card(), **self.normalize.facts()}

    def predict_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self._predict_set, EVAL_BATCH_SIZE)

    def predict_on(self, paths: Sequence[Path], *, invert: bool = False) -> None:
        """Choose the image files that `Trainer.predict` reads; `invert` turns dark on light into light on dark."""
        self._predict_set = ImageFiles(paths, self.input_shape, invert=invert)

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
        return self.normalize.statistics()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if "matrix" in state_dict:
            self.normalize = Whiten(state_dict["mean"], state_dict["matrix"])
        else:
            self.normalize = Normalize(torch.tensor(state_dict["mean"]), torch.tensor(state_dict["std"]))


def require_positive(**values: int | None) -> None:
    """Refuse a number below 1.

    Raises:
        ValueError: One of them is; the message names it.
    """
    for name, value in values.items():
        if value is not None and value < 1:
            raise ValueError(f"data.{name} is {value}; it must be 1 or more")

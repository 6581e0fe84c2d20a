"""Abstract in-memory DataModules of synthetic examples, and of images with split and normalisation.

Data are held once, as tensors; images as uint8. A standard DataLoader fetches whole batches from them. Augmentation and
normalisation run on the batch, on the device, in `on_after_batch_transfer`.

Shapes: N examples of a set, B batch size, C channels, H rows, W columns.
"""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.augment import alternating_flip, random_crop, random_flip
from datamodules.folds import Fold, limit_training
from datamodules.in_memory import EVAL_BATCH_SIZE, InMemoryDataModule, require_positive
from datamodules.normalize import Normalize, Whiten, channel_statistics, fit_zca, identity
from datamodules.sampling import global_seed
from datamodules.sets import Batch, ImageFiles, TensorSet
from datamodules.split import Subset, stratified_split
from datamodules.statistics import image_statistics


class SyntheticDataModule(InMemoryDataModule):
    """Base class of synthetic data, sampled by a seed. The three sets are independent of one another.

    Args:
        n_train: Number of training examples.
        n_val: Number of validation examples.
        n_test: Number of test examples.
        seed: Seed of the examples.
        **loading: Batch size, training-set evaluation and device, see `InMemoryDataModule`.
    """

    def __init__(self, *, n_train: int, n_val: int, n_test: int, seed: int, **loading: Any) -> None:
        super().__init__(**loading)
        require_positive(n_train=n_train, n_val=n_val, n_test=n_test)
        self.n_train, self.n_val, self.n_test, self.seed = n_train, n_val, n_test, seed

    def setup(self, stage: str) -> None:
        if stage in ("fit", "validate"):
            self.train_set, self.val_set = self.sample(self.n_train, 0), self.sample(self.n_val, 1)
        if stage == "test":
            self.test_set = self.sample(self.n_test, 2)

    @abstractmethod
    def sample(self, size: int, stream: int) -> TensorSet:
        """Return `size` examples, determined by the seed and the number of the random stream."""


class ImageDataModule(InMemoryDataModule):
    """Base class of labelled images with an official test set, which is used as the test set only.

    The validation set is a stratified, seeded part of the official training images. It depends neither on `n_train` nor
    on the seed of the run, so that runs can be compared pairwise.

    Args:
        n_val: Number of validation examples, stratified, taken from the official training set.
        n_train: Number of training examples, taken from the remaining ones; None takes all of them.
        subset: Whether the `n_train` examples are "stratified" (have the class proportions of all) or drawn at
            "random".
        split_seed: Seed that selects the validation examples, the folds and the training subset.
        folds: Number of folds, for cross-validation: each training image validates in one of them, and `n_val` has no
            effect. None for one fixed validation set.
        fold: Index of the fold that validates, from 0; None is the first. `litlab fit --folds` and sweeps set it.
        normalization: "standard" subtracts the mean and divides by the standard deviation of each channel; "zca"
            whitens (decorrelates) all pixels; both are fitted on the training examples in use. "unit" only scales
            pixels to [0, 1].
        crop_padding: Padding in pixels of a random crop, in training only; 0 for no crop.
        flip: Whether to flip images horizontally at random, in training only; "alternate" flips each image in every
            other epoch.
        **loading: Batch size, training-set evaluation and device, see `InMemoryDataModule`.
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
        subset: Subset = "stratified",
        split_seed: int = 0,
        folds: int | None = None,
        fold: int | None = None,
        normalization: Literal["standard", "unit", "zca"] = "standard",
        crop_padding: int = 0,
        flip: bool | Literal["alternate"] = False,
        **loading: Any,
    ) -> None:
        super().__init__(**loading)
        require_positive(n_val=n_val, n_train=n_train)
        if flip not in (False, True, "alternate"):
            raise ValueError(f"data.flip is {flip!r}; it must be true, false or alternate")
        if subset not in ("stratified", "random"):
            raise ValueError(f"data.subset is {subset!r}; it must be stratified or random")
        if crop_padding < 0:
            raise ValueError(f"data.crop_padding is {crop_padding}; it must be 0 or more")
        self.n_val, self.n_train, self.subset, self.split_seed = n_val, n_train, subset, split_seed
        self.fold = Fold.of(folds, fold, split_seed)
        self.normalization, self.crop_padding, self.flip = normalization, crop_padding, flip
        self.normalize = None

    @abstractmethod
    def load(self, *, train: bool) -> tuple[Tensor, Tensor]:
        """Load the official training or test set: uint8 pixels, shape (N, *input_shape), and int64 labels, shape (N,).

        Raises:
            ValueError: A file is corrupt. The message names the file and the problem.
            FileNotFoundError: A file is missing.
        """

    def download(self) -> None:
        """Download missing files, if the data can be downloaded.

        Raises:
            FileNotFoundError: A file is missing and cannot be downloaded.
        """

    def prepare_data(self) -> None:
        """Download missing files, except for prediction, which needs none of them."""
        if self.trainer is None or not self.trainer.predicting:
            self.download()

    def setup(self, stage: str) -> None:
        if stage in ("fit", "validate") and not hasattr(self, "train_set"):
            images, labels = self.load(train=True)
            train, val = self.split(labels) if self.fold is None else self.split_fold(labels, self.fold)
            self.folded_set = None if self.fold is None else TensorSet(images, labels)
            self.train_set = self.make_set("train", images.index_select(0, train), labels[train])
            self.val_set = self.make_set("val", images.index_select(0, val), labels[val])
            self.normalize = self.normalize or self._fit_normalization(self.train_set.inputs)
        if stage == "test" and not hasattr(self, "test_set"):
            self.test_set = self.make_set("test", *self.load(train=False))

    def split(self, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return the indices of the training and of the validation examples."""
        return self._stratified_split(labels_N, self.n_val)

    def _stratified_split(self, labels_N: Tensor, n_val: int) -> tuple[Tensor, Tensor]:
        seed, subset = self.split_seed, self.subset
        return stratified_split(labels_N, n_val=n_val, n_train=self.n_train, seed=seed, subset=subset)

    def split_fold(self, labels_N: Tensor, fold: Fold) -> tuple[Tensor, Tensor]:
        """Return the indices of the training and of the validation examples of a fold."""
        train, val = fold.split(len(labels_N), strata_N=labels_N)
        return self._limit_training(train, labels_N), val

    def _limit_training(self, train: Tensor, strata_N: Tensor) -> Tensor:
        return limit_training(train, strata_N, self.n_train, self.split_seed, self.subset)

    def make_set(self, name: Literal["train", "val", "test"], images: Tensor, labels: Tensor) -> TensorSet:
        """Return the set with this name, made of these images."""
        return TensorSet(images, labels)

    def _fit_normalization(self, images_NCHW: Tensor) -> Normalize | Whiten:
        if self.normalization == "unit":
            return identity(self.input_shape[0])
        if self.normalization == "zca":
            return fit_zca(images_NCHW)
        return Normalize(*channel_statistics(images_NCHW))

    def describe(self) -> dict[str, Any]:
        """Return the size and SHA-256 of each set, the normalisation, and statistics of the training images."""
        assert self.normalize is not None
        images = {"images": image_statistics(self.train_set.inputs)} if "train_set" in vars(self) else {}
        return {**super().describe(), **self.normalize.describe(), **images}

    def predict_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self._predict_set, EVAL_BATCH_SIZE)

    def predict_on(self, paths: Sequence[Path], *, invert: bool = False) -> None:
        """Set the image files that `Trainer.predict` reads; `invert` inverts their pixel values."""
        self._predict_set = ImageFiles(paths, self.input_shape, invert=invert)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment (in training) and normalise a batch of uint8 pixels, on its device."""
        images_BCHW, *rest = batch
        if self.trainer is not None and self.trainer.training:
            images_BCHW = self.augment(images_BCHW)
        return self.normalized(images_BCHW), *rest

    def augment(self, images_BCHW: Tensor) -> Tensor:
        """Randomly crop and flip a batch of uint8 pixels, as configured."""
        if self.flip == "alternate":  # by the whole image, before a part of it is cropped away
            epoch = 0 if self.trainer is None else self.trainer.current_epoch
            images_BCHW = alternating_flip(images_BCHW, epoch, global_seed())
        if self.crop_padding:
            images_BCHW = random_crop(images_BCHW, self.crop_padding)
        return random_flip(images_BCHW) if self.flip is True else images_BCHW

    def state_dict(self) -> dict[str, Any]:
        """Return the normalisation statistics. Saved in checkpoints, so that inference needs no training data."""
        assert self.normalize is not None
        return self.normalize.statistics()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if "matrix" in state_dict:
            self.normalize = Whiten(state_dict["mean"], state_dict["matrix"])
        else:
            self.normalize = Normalize(torch.tensor(state_dict["mean"]), torch.tensor(state_dict["std"]))


def image_shape(channels: int, size: int | tuple[int, int]) -> tuple[int, int, int]:
    """Return channels, rows and columns of images of a size: one number for square ones.

    Raises:
        ValueError: A size is below 1.
    """
    rows, columns = (size, size) if isinstance(size, int) else size
    require_positive(size=min(rows, columns))
    return channels, rows, columns

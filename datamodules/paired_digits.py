"""Pairs of digits, one above the other; the label is their sum.

Shapes: N digits of a set, B batch size, C channels, H rows, W columns.
"""

from typing import Any, Literal, final

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.base import ImageDataModule
from datamodules.digits import Digits
from datamodules.mnist import MNIST
from datamodules.sampling import EpochSampler, epoch_generator
from datamodules.sets import Batch, TensorSet

SOURCES = ("mnist", "digits")
SUMS = tuple(str(total) for total in range(19))
VAL_STREAM, TEST_STREAM = 1, 2  # random streams of the fixed pairs, which are sampled independently for the two sets


class PairSet(TensorSet):
    """All N^2 pairs of N digits: pair k, from 0 to N^2 - 1, is digit k // N above digit k % N. An epoch has N pairs.

    Args:
        inputs: uint8 pixels of the digits, shape (N, C, H, W).
        targets: Values of the digits, shape (N,).
    """

    def __getitem__(self, index: int) -> Batch:
        images, sums = self.__getitems__([index])
        return images[0], sums[0]

    def select(self, rows: Tensor) -> Batch:
        """Return the pairs with these indices."""
        top_B, bottom_B = rows // len(self), rows % len(self)
        images = torch.cat([self.inputs.index_select(0, digits_B) for digits_B in (top_B, bottom_B)], dim=2)
        return images, self.targets[top_B] + self.targets[bottom_B]

    def sample_pairs(self, seed: int, epoch: int) -> Tensor:
        """Return the indices of N uniformly sampled pairs, determined by the seed and the epoch."""
        n = len(self)
        return torch.randint(n * n, (n,), generator=epoch_generator(seed, epoch))


class PairSampler(EpochSampler):
    """Sampler of new pairs of digits for each epoch. See `EpochSampler` for the arguments."""

    def _epoch_order(self) -> Tensor:
        pairs = self.dataset
        assert isinstance(pairs, PairSet)
        return pairs.sample_pairs(self.seed, self.epoch)


@final
class PairedDigits(ImageDataModule):
    """Two digits of one source, one above the other, 56x28; the label is their sum, 0 to 18.

    Both digits of a pair are from the same split. Training pairs are sampled anew in each epoch, as many as there are
    training digits. Validation and test pairs are sampled once, as many as there are digits in the set.

    Args:
        source: "mnist" or "digits" (scikit-learn's).
        data_dir: Folder that contains MNIST, or into which it is downloaded.
        verify: Whether to reject MNIST files that are not the official ones.
        n_val: Number of validation digits, and of validation pairs; the default is that of the source.
        **options: Subset (of digits), batch size, normalisation and augmentation, see `ImageDataModule`.
    """

    input_shape = (1, 56, 28)
    classes = SUMS

    def __init__(
        self,
        source: Literal["mnist", "digits"] = "mnist",
        data_dir: str = "data",
        verify: bool = True,
        n_val: int | None = None,
        **options: Any,
    ) -> None:
        if source not in SOURCES:
            raise ValueError(f"data.source is {source!r}; it must be one of {', '.join(SOURCES)}")
        digits = MNIST(data_dir, verify) if source == "mnist" else Digits()
        super().__init__(n_val=digits.n_val if n_val is None else n_val, **options)
        if self.normalization == "zca":
            raise ValueError(
                "data.normalization is zca, which is fitted on single digits; use standard or unit for pairs"
            )
        self.source = digits

    def download(self) -> None:
        self.source.download()

    def load(self, *, train: bool) -> tuple[Tensor, Tensor]:
        """Load the single digits of which pairs are made."""
        return self.source.load(train=train)

    def make_set(self, name: Literal["train", "val", "test"], images: Tensor, labels: Tensor) -> TensorSet:
        pairs = PairSet(images, labels)
        if name == "train":
            return pairs
        # All runs have the same test set.
        seed, stream = (self.split_seed, VAL_STREAM) if name == "val" else (0, TEST_STREAM)
        return TensorSet(*pairs.select(pairs.sample_pairs(seed, stream)))

    def _sampler(self, dataset: Dataset[Batch], shuffle: bool) -> EpochSampler:
        if not isinstance(dataset, PairSet):
            return super()._sampler(dataset, shuffle)
        return PairSampler(dataset, shuffle=shuffle, **self._rank_and_world_size)  # type: ignore[arg-type]

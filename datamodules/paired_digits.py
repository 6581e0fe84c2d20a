"""Two digits, one above the other; the label is their sum."""

from typing import Any, Literal, final

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.base import ImageDataModule
from datamodules.digits import Digits
from datamodules.mnist import MNIST
from datamodules.sampling import EpochSampler, seeded
from datamodules.sets import Batch, ImageSet, TensorSet, present

SOURCES = ("mnist", "digits")
SUMS = tuple(str(total) for total in range(19))
VAL_STREAM, TEST_STREAM = 1, 2  # so that the fixed pairs of the two sets are drawn independently


class PairSet(TensorSet):
    """Pairs of N digits: pair k, of 0 to N^2 - 1, is digit k // N above digit k % N; an epoch has N of them.

    Args:
        images_NCHW: uint8 pixels of the digits.
        labels_N: Their values.
    """

    def __getitem__(self, index: int) -> Batch:
        images, sums = self.__getitems__([index])
        return images[0], sums[0]

    def __getitems__(self, batch: Any) -> Batch:
        pairs_B = present(batch)
        n = len(self._indices)
        top_B, bottom_B = self._indices[pairs_B // n], self._indices[pairs_B % n]
        return (
            torch.cat([self._inputs.index_select(0, top_B), self._inputs.index_select(0, bottom_B)], dim=2),
            self._targets.index_select(0, top_B) + self._targets.index_select(0, bottom_B),
        )

    def draw(self, seed: int, epoch: int) -> Tensor:
        """N pairs, each as likely as any other, determined by the seed and the epoch."""
        n = len(self)
        return torch.randint(n * n, (n,), generator=seeded(seed, epoch))


class PairSampler(EpochSampler):
    """Draws pairs of digits anew for each epoch; see `EpochSampler` for the arguments."""

    def _order(self) -> Tensor:
        pairs = self.dataset
        assert isinstance(pairs, PairSet)
        return pairs.draw(self.seed, self.epoch)


@final
class PairedDigits(ImageDataModule):
    """Two digits of one source, one above the other, 56x28; the label is their sum, 0 to 18.

    Both digits of a pair are of the same split. Training pairs are drawn anew in each epoch, as many as there are
    training digits; validation and test pairs are drawn once, as many as there are digits in the set.

    Args:
        source: "mnist" or "digits" (scikit-learn's).
        data_dir: The folder that holds, or will hold, MNIST.
        verify: Refuse files that are not the official ones.
        n_val: Number of validation digits, and of validation pairs; by default as many as the source has.
        **options: Subset (of digits), batch size, normalisation and augmentation of `ImageDataModule`.
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
            raise ValueError("data.normalization is zca, which is fitted on single digits; standard or unit for pairs")
        self.source = digits

    def download(self) -> None:
        self.source.download()

    def load(self, *, train: bool) -> tuple[Tensor, Tensor]:
        """The digits that pairs are made of."""
        return self.source.load(train=train)

    def make_sets(self, images: Tensor, labels: Tensor, train: Tensor, val: Tensor) -> tuple[TensorSet, TensorSet]:
        return PairSet(images, labels, train), self._fixed(PairSet(images, labels, val), VAL_STREAM)

    def make_test_set(self, images: Tensor, labels: Tensor) -> TensorSet:
        return self._fixed(PairSet(images, labels), TEST_STREAM)

    def _fixed(self, pairs: PairSet, stream: int) -> ImageSet:
        seed = self.split_seed if stream == VAL_STREAM else 0  # the test set is the same in all runs
        return ImageSet(*pairs.__getitems__(pairs.draw(seed, stream)))

    def _sampler(self, dataset: Dataset[Batch], shuffle: bool) -> EpochSampler:
        if not isinstance(dataset, PairSet):
            return super()._sampler(dataset, shuffle)
        return PairSampler(dataset, shuffle=shuffle, **self._place)  # type: ignore[arg-type]

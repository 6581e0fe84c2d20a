"""The handwritten digits that come with scikit-learn: 1,797 real scans, 8x8 grey (Alpaydin and Kaynak, 1998)."""

from typing import Any, final

import torch
from torch import Tensor

from datamodules.base import ImageDataModule
from datamodules.split import stratified_split

N_TEST = 360
TEST_SEED = 0  # fixes the test part for good: it is no parameter, so that no run can choose its own test set
MAX_VALUE = 16  # scikit-learn's pixels are counts of 0 to 16


@final
class Digits(ImageDataModule):
    """scikit-learn's digits, enlarged to MNIST's 28x28; nothing to download.

    The set has no official test part: 360 examples, stratified, are set aside once and for all.

    Args:
        n_val: Number of validation examples, taken from the 1,437 training images.
        **options: Subset, batch size, normalisation and augmentation of `ImageDataModule`.
    """

    input_shape = (1, 28, 28)
    classes = tuple("0123456789")

    def __init__(self, n_val: int = 200, **options: Any) -> None:
        super().__init__(n_val=n_val, **options)

    def load(self, *, train: bool) -> tuple[Tensor, Tensor]:
        from sklearn.datasets import load_digits

        images_NHW, labels = load_digits(return_X_y=True)
        labels_N = torch.from_numpy(labels).to(torch.int64)
        kept, test = stratified_split(labels_N, n_val=N_TEST, n_train=None, seed=TEST_SEED)
        part = kept if train else test
        return _enlarge(torch.from_numpy(images_NHW).view(-1, 1, 8, 8)[part]), labels_N[part]


def _enlarge(values_NCHW: Tensor) -> Tensor:
    """Counts of 0 to 16 to uint8 pixels of 28x28, bilinearly."""
    pixels = values_NCHW.to(torch.float32) * (255 / MAX_VALUE)
    return torch.nn.functional.interpolate(pixels, size=(28, 28), mode="bilinear").round().to(torch.uint8)

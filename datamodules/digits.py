"""Handwritten digits that come with scikit-learn: 1,797 scans, 8x8 greyscale (Alpaydin and Kaynak, 1998)."""

from typing import Any, final

import torch
from torch import Tensor

from datamodules.base import ImageDataModule
from datamodules.split import TEST_SEED, stratified_split

N_TEST = 360
MAX_VALUE = 16  # scikit-learn's pixels are counts from 0 to 16


@final
class Digits(ImageDataModule):
    """scikit-learn's digits, upsampled to MNIST's 28x28. Needs no download.

    The data have no official test set; a fixed, stratified part of 360 examples is used.

    Args:
        n_val: Number of validation examples, taken from the 1,437 training images.
        **options: Subset, batch size, normalisation and augmentation, see `ImageDataModule`.
    """

    input_shape = (1, 28, 28)
    classes = tuple("0123456789")

    def __init__(self, n_val: int = 200, **options: Any) -> None:
        super().__init__(n_val=n_val, **options)

    def load(self, *, train: bool) -> tuple[Tensor, Tensor]:
        from sklearn.datasets import load_digits

        images_NHW, labels = load_digits(return_X_y=True)
        labels_N = torch.from_numpy(labels).to(torch.int64)
        train_indices, test_indices = stratified_split(labels_N, n_val=N_TEST, n_train=None, seed=TEST_SEED)
        indices = train_indices if train else test_indices
        return _upsample(torch.from_numpy(images_NHW).view(-1, 1, 8, 8)[indices]), labels_N[indices]


def _upsample(values_NCHW: Tensor) -> Tensor:
    """Convert counts from 0 to 16 to uint8 pixels of 28x28, with bilinear interpolation."""
    pixels = values_NCHW.to(torch.float32) * (255 / MAX_VALUE)
    return torch.nn.functional.interpolate(pixels, size=(28, 28), mode="bilinear").round().to(torch.uint8)

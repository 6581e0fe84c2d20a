"""Handwritten digits that come with scikit-learn, as an example of labelled images: 1,797 scans of 8x8 pixels."""

from typing import Any

import torch
from torch import Tensor

from datamodules.base import ImageDataModule

N_TEST = 360


class Images(ImageDataModule):
    """Images of ten classes. Replace `load` by code that reads your own.

    For images in one folder per class, no code is needed: use `datamodules.image_folder.ImageFolder`.

    Args:
        n_val: Number of validation examples, taken from the training images.
        **options: Batch size, subset, normalisation and augmentation, see `ImageDataModule`.
    """

    input_shape = (1, 8, 8)  # channels, rows, columns
    classes = tuple("0123456789")

    def __init__(self, n_val: int = 200, **options: Any) -> None:
        super().__init__(n_val=n_val, **options)

    def load(self, *, train: bool) -> tuple[Tensor, Tensor]:
        """Return uint8 pixels, shape (N, channels, rows, columns), and int64 labels, shape (N,)."""
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        pixels = torch.from_numpy(images * (255 / 16)).to(torch.uint8).view(-1, *self.input_shape)
        part = slice(N_TEST, None) if train else slice(N_TEST)
        return pixels[part], torch.from_numpy(labels).long()[part]

"""Where the images to explain come from: litlab's data modules, or the batches of any other.

Shapes: N images, C channels, H rows, W columns.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from datamodules.base import ImageDataModule
from datamodules.images import open_image, read_image
from pipelines.config.data_setup import load_data
from pipelines.config.example_batch import ExampleBatch
from pipelines.runtime.errors import UserError

PIXEL_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))  # the usual ones; otherwise each channel has its own


class ImageSource(Protocol):
    """Images as uint8 pixels on the CPU."""

    def test_set(self) -> tuple[Tensor, Tensor]:
        """Return pixels of shape (N, C, H, W) and classes of shape (N,), -1 if unknown, of the test set."""

    def train_images(self, count: int) -> Tensor:
        """Return the first training images, or what is nearest to them, shape (N, C, H, W)."""

    def read(self, path: Path) -> Tensor:
        """Read an image file, shape (C, H, W).

        Raises:
            ValueError, OSError: The file does not exist, or is not an image.
        """


class LitlabImages:
    """The images of a data module of litlab. They are loaded when they are needed."""

    def __init__(self, data: ImageDataModule) -> None:
        self._data = data

    def test_set(self) -> tuple[Tensor, Tensor]:
        load_data(self._data, "test")
        return self._data.test_set.inputs, self._data.test_set.targets

    def train_images(self, count: int) -> Tensor:
        load_data(self._data, "fit")
        return self._data.train_set.inputs[:count]

    def read(self, path: Path) -> Tensor:
        return read_image(path, self._data.input_shape)


class BatchImages:
    """The images in the batches of any data module, as the steps of its module receive them.

    Args:
        example: The first batch, and the data set.
        batches: All of them.
        key: The part of a batch that holds images.

    Attributes:
        to_input: Maps pixels in [0, 1] to the input of the network.
        labels_N: Classes, -1 if unknown.
    """

    def __init__(self, example: ExampleBatch, batches: list[ExampleBatch], key: str | None) -> None:
        images_NCHW = torch.cat([batch.image_input(key) for batch in batches]).float()
        labels = [_labels(batch.batch, batch.image_input(key)) for batch in batches]
        self._example = example
        self.labels_N = torch.cat(labels)
        self.to_input = ToPixelRange(*_pixel_range(images_NCHW))
        self._pixels_NCHW = self._as_bytes(images_NCHW)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        channels, rows, columns = self._pixels_NCHW.shape[1:]
        return channels, rows, columns

    def test_set(self) -> tuple[Tensor, Tensor]:
        return self._pixels_NCHW, self.labels_N

    def train_images(self, count: int) -> Tensor:
        return self._pixels_NCHW[:count]

    def read(self, path: Path) -> Tensor:
        transform = self._example.attribute("transform")
        if not callable(transform):
            return read_image(path, self.input_shape)
        pixels = transform(open_image(path, self.input_shape[0]))
        if not isinstance(pixels, Tensor) or tuple(pixels.shape) != self.input_shape:
            raise UserError(f"{path}: the transform of {type(self._example.dataset).__name__} makes no such image")
        return self._as_bytes(pixels[None].float())[0]

    def _as_bytes(self, images_NCHW: Tensor) -> Tensor:
        low, high = self.to_input.low_C11, self.to_input.high_C11
        unit_NCHW = (images_NCHW - low) / (high - low)
        return (unit_NCHW.clamp(0, 1) * 255).round().to(torch.uint8)


class ToPixelRange(nn.Module):
    """Map pixels in [0, 1] to the range that a network takes, per channel."""

    low_C11: Tensor
    high_C11: Tensor

    def __init__(self, low_C: Tensor, high_C: Tensor) -> None:
        super().__init__()
        self.register_buffer("low_C11", low_C[:, None, None])
        self.register_buffer("high_C11", high_C[:, None, None])

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        return self.low_C11 + pixels_NCHW * (self.high_C11 - self.low_C11)


def _pixel_range(images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest value of each channel: of a usual range, or those that occur."""
    low_C, high_C = images_NCHW.amin((0, 2, 3)), images_NCHW.amax((0, 2, 3))
    for low, high in PIXEL_RANGES:
        if low_C.min() >= low and high_C.max() <= high:
            return torch.full_like(low_C, low), torch.full_like(high_C, high)
    return low_C, torch.maximum(high_C, low_C + 1e-6)


def _labels(batch: Any, images_NCHW: Tensor) -> Tensor:
    """Return the first part of a batch that has one whole number for each image; -1 if there is none."""
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    for part in parts:
        if isinstance(part, Tensor) and part.shape == images_NCHW.shape[:1] and not part.is_floating_point():
            return part.long()
    return torch.full(images_NCHW.shape[:1], -1)

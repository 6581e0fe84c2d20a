"""Brightness and contrast of images, by which images are recognised that are unlike those of a training.

Shapes: N images, C channels, H rows, W columns.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

MAX_IMAGES, MIN_IMAGES = 1000, 100  # that the statistics are of
MAX_VALUES = 3_000_000  # pixel values in all, unless MIN_IMAGES have more


def brightness_and_contrast(images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of each image, and the mean over its channels of their standard deviations, of shape (N,).

    Args:
        images_NCHW: uint8 pixels. The results are in units of pixel / 255.
    """
    values_NCP = (
        images_NCHW.flatten(2).numpy().astype(np.float32) / 255
    )  # torch's threads would cost more than the sums
    return torch.from_numpy(values_NCP.mean((1, 2))), torch.from_numpy(values_NCP.std(2).mean(1))


def image_statistics(images_NCHW: Tensor) -> dict[str, Any]:
    """Return mean and standard deviation of brightness and contrast over images that are drawn from a set."""
    count = min(MAX_IMAGES, max(MIN_IMAGES, MAX_VALUES // images_NCHW[0].numel()))
    drawn = torch.randperm(len(images_NCHW), generator=torch.Generator().manual_seed(0))[:count]
    parts = [brightness_and_contrast(images_NCHW.index_select(0, part)) for part in torch.split(drawn, MIN_IMAGES)]
    pairs = zip(("brightness", "contrast"), zip(*parts, strict=True), strict=True)
    columns = {name: torch.cat(column) for name, column in pairs}
    return {name: {"mean": float(c.mean()), "sd": float(c.std(correction=0))} for name, c in columns.items()}

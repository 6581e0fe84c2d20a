"""Pixels to what a model sees.

Shapes: N images of a set, B of a batch, C channels, H rows, W columns, V the 256 values of a pixel.
"""

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """uint8 pixels to (pixel / 255 - mean) / std, float32.

    Args:
        mean_C: Mean of each channel, in units of pixel / 255.
        std_C: Standard deviation of each channel, in the same units.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, mean_C: Tensor, std_C: Tensor) -> None:
        super().__init__()
        self.mean, self.std = mean_C.tolist(), std_C.tolist()
        self.register_buffer("scale", (std_C * 255).reciprocal()[:, None, None])
        self.register_buffer("offset", (-mean_C / std_C)[:, None, None])

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return images_BCHW.to(torch.float32, copy=True).mul_(self.scale).add_(self.offset)


def channel_statistics(images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of uint8 images, in units of pixel / 255; shapes (C,) and (C,).

    Raises:
        ValueError: A channel has one value only, so that it cannot be standardised.
    """
    pixels_CN = images_NCHW.transpose(0, 1).flatten(1)
    counts_CV = torch.stack([torch.bincount(channel, minlength=256) for channel in pixels_CN]).double()
    values_V = torch.arange(256, dtype=torch.float64) / 255
    mean_C = (counts_CV * values_V).sum(1) / counts_CV.sum(1)
    variance_C = (counts_CV * (values_V - mean_C[:, None]) ** 2).sum(1) / counts_CV.sum(1)
    if ((counts_CV > 0).sum(1) == 1).any():
        raise ValueError("a channel of the training images is constant: it cannot be standardised")
    return mean_C.float(), variance_C.sqrt().float()

"""The spectrum of images: its mean amplitude, and how much of it is fine detail.

Shapes: N images, C channels, H rows, W columns.
"""

import torch
from torch import Tensor

HALF_NYQUIST = 0.25  # cycles per pixel; the finest that pixels can hold is 0.5


def amplitudes(images_NCHW: Tensor) -> Tensor:
    """Amplitude at each frequency, shape (N, C, H, W); their mean square over H W is the image's sum of squares."""
    amplitudes_NCHW: Tensor = torch.fft.fft2(images_NCHW).abs()
    return amplitudes_NCHW


def mean_amplitudes(images_NCHW: Tensor) -> Tensor:
    """Mean amplitude at each frequency, over the images; shape (C, H, W)."""
    return amplitudes(images_NCHW).mean(0)


def distance(images_NCHW: Tensor, mean_CHW: Tensor) -> Tensor:
    """Squared distance of each image's amplitudes from the mean ones, shape (N,).

    It is divided by H W, so that for a mean of nothing it is the image's own sum of squares (Parseval).
    """
    return (amplitudes(images_NCHW) - mean_CHW).square().mean((2, 3)).sum(1)


def high_share(images_NCHW: Tensor) -> Tensor:
    """Share of each image's power above half the Nyquist frequency, in any direction, shape (N,).

    The mean of a channel counts for nothing. White noise has about 0.8, an image without any detail 0.
    """
    power_NHW = amplitudes(images_NCHW.double()).square().sum(1)
    power_NHW[:, 0, 0] = 0
    rows, columns = (torch.fft.fftfreq(size, device=images_NCHW.device) for size in images_NCHW.shape[2:])
    is_high_HW = torch.hypot(rows[:, None], columns[None]) > HALF_NYQUIST
    whole_N = power_NHW.sum((1, 2))
    return (power_NHW * is_high_HW).sum((1, 2)) / whole_N.clamp(min=torch.finfo(torch.float64).tiny)

"""Amplitude spectra of images, and their share of high frequencies.

Shapes: N images, C channels, H rows, W columns.
"""

import torch
from torch import Tensor

HALF_NYQUIST = 0.25  # cycles per pixel; the highest frequency of pixels is 0.5


def amplitudes(images_NCHW: Tensor) -> Tensor:
    """Return the amplitude of each frequency, shape (N, C, H, W); mean square over H W = sum of squared pixels."""
    amplitudes_NCHW: Tensor = torch.fft.fft2(images_NCHW).abs()
    return amplitudes_NCHW


def mean_amplitudes(images_NCHW: Tensor) -> Tensor:
    """Return the mean amplitude of each frequency over the images, shape (C, H, W)."""
    return amplitudes(images_NCHW).mean(0)


def spectral_distance(images_NCHW: Tensor, mean_CHW: Tensor) -> Tensor:
    """Return the squared distance of each image's amplitudes from the mean amplitudes, shape (N,).

    It is divided by H W, so that with mean amplitudes of 0 it is the image's sum of squares (Parseval).
    """
    return (amplitudes(images_NCHW) - mean_CHW).square().mean((2, 3)).sum(1)


def high_frequency_share(images_NCHW: Tensor) -> Tensor:
    """Return the share of each image's power above half the Nyquist frequency, in any direction, shape (N,).

    The mean of each channel is ignored. White noise has about 0.8, an image without detail 0.
    """
    power_NHW = amplitudes(images_NCHW.double()).square().sum(1)
    power_NHW[:, 0, 0] = 0
    rows, columns = (torch.fft.fftfreq(size, device=images_NCHW.device) for size in images_NCHW.shape[2:])
    is_high_HW = torch.hypot(rows[:, None], columns[None]) > HALF_NYQUIST
    total_N = power_NHW.sum((1, 2))
    return (power_NHW * is_high_HW).sum((1, 2)) / total_N.clamp(min=torch.finfo(torch.float64).tiny)

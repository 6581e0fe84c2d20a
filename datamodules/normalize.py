"""Pixels to what a model sees.

Shapes: N images of a set, B of a batch, C channels, H rows, W columns, D = C H W values of an image, V the 256 values
of a pixel.
"""

from typing import Any

import torch
from torch import Tensor, nn

ZCA_EPSILON = 0.1  # added to eigenvalues whose mean is 1 (Coates, Ng and Lee, 2011, on patches of unit variance)
ZCA_MOST_VALUES = 10_000  # 0.8 GB for the covariance, minutes for its eigenvectors
CHUNK = 5000  # images whose float values are held at a time


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

    def statistics(self) -> dict[str, Any]:
        """What makes this again: mean and standard deviation per channel, as plain numbers."""
        return {"mean": self.mean, "std": self.std}

    facts = statistics


class Whiten(nn.Module):
    """uint8 pixels to (pixel / 255 - mean) times a matrix, float32, of the same shape.

    Args:
        mean_D: Mean of each value of an image, in units of pixel / 255.
        matrix_DD: Symmetric.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, mean_D: Tensor, matrix_DD: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean_D)
        self.register_buffer("matrix", matrix_DD)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        values_BD = images_BCHW.flatten(1).to(torch.float32) / 255 - self.mean
        return (values_BD @ self.matrix).view(images_BCHW.shape)

    def statistics(self) -> dict[str, Any]:
        """What makes this again, as tensors."""
        return {"mean": self.mean, "matrix": self.matrix}

    def facts(self) -> dict[str, Any]:
        """What a person wants to know of it."""
        return {"whitening": "zca", "values": len(self.mean), "epsilon": ZCA_EPSILON}


def identity(channels: int) -> Normalize:
    """Pixels to [0, 1], and nothing else."""
    return Normalize(torch.zeros(channels), torch.ones(channels))


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


def fit_zca(images_NCHW: Tensor) -> Whiten:
    """ZCA whitening of uint8 images: their covariance becomes nearly the identity, and they still look like images.

    The whitened training images have mean 0 and variance 1 on average over the D values. Directions that vary less
    than `ZCA_EPSILON` of the average, mostly noise, are left small.

    Raises:
        ValueError: All images are the same, so that there is nothing to whiten.
    """
    if (images_NCHW == images_NCHW[:1]).all():
        raise ValueError("the training images are all the same: they cannot be whitened")
    if images_NCHW[0].numel() > ZCA_MOST_VALUES:
        raise ValueError(
            f"data.normalization is zca: images of {images_NCHW[0].numel():,} values have too large a covariance; "
            f"at most {ZCA_MOST_VALUES:,}"
        )
    mean_D, covariance_DD = _moments(images_NCHW.flatten(1))
    eigenvalues_D, vectors_DD = torch.linalg.eigh(covariance_DD)
    eigenvalues_D = (eigenvalues_D / eigenvalues_D.mean()).clamp(min=0)
    whitened_D = eigenvalues_D / (eigenvalues_D + ZCA_EPSILON)  # the variances that come out
    gains_D = (covariance_DD.diagonal().mean() * (eigenvalues_D + ZCA_EPSILON) * whitened_D.mean()).rsqrt()
    return Whiten(mean_D.float(), ((vectors_DD * gains_D) @ vectors_DD.T).float())


def _moments(pixels_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of uint8 pixels, in units of pixel / 255, float64."""
    count, size = pixels_ND.shape
    mean_D = torch.zeros(size, dtype=torch.float64)
    products_DD = torch.zeros(size, size, dtype=torch.float64)
    for chunk in torch.split(pixels_ND, CHUNK):
        values = chunk.to(torch.float32) / 255 - 0.5  # centred about, so that float32 keeps the digits
        mean_D += values.sum(0, dtype=torch.float64) / count
        products_DD += (values.T @ values).double() / count
    return mean_D + 0.5, products_DD - mean_D[:, None] * mean_D

"""Normalisation of uint8 pixels to model inputs: standardisation, scaling to [0, 1], and ZCA whitening.

Shapes: N images of a set, B batch size, C channels, H rows, W columns, D = C * H * W values of an image, V the 256
possible values of a pixel.
"""

from typing import Any

import torch
from torch import Tensor, nn

ZCA_EPSILON = 0.1  # added to eigenvalues whose mean is 1 (Coates, Ng and Lee, 2011, for patches of unit variance)
ZCA_MAX_VALUES = 10_000  # 0.8 GB for the covariance, minutes for its eigenvectors
CHUNK_SIZE = 5000  # images that are converted to float at a time


class Normalize(nn.Module):
    """Map uint8 pixels to (pixel / 255 - mean) / std, float32.

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
        """Return the arguments that rebuild this module: mean and standard deviation per channel, as plain numbers."""
        return {"mean": self.mean, "std": self.std}

    describe = statistics


class Whiten(nn.Module):
    """Map uint8 pixels to (pixel / 255 - mean) times a matrix, float32, of the same shape.

    Args:
        mean_D: Mean of each value of an image, in units of pixel / 255.
        matrix_DD: Symmetric whitening matrix.
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
        """Return the arguments that rebuild this module, as tensors."""
        return {"mean": self.mean, "matrix": self.matrix}

    def describe(self) -> dict[str, Any]:
        """Return a short description, without the matrix."""
        return {"whitening": "zca", "values": len(self.mean), "epsilon": ZCA_EPSILON}


def identity(channels: int) -> Normalize:
    """Return a normalisation that only scales pixels to [0, 1]."""
    return Normalize(torch.zeros(channels), torch.ones(channels))


def channel_statistics(images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel of uint8 images, in units of pixel / 255, both of shape (C,).

    Raises:
        ValueError: A channel is constant, so that it cannot be standardised.
    """
    pixels_CN = images_NCHW.transpose(0, 1).flatten(1)
    counts_CV = torch.stack([torch.bincount(channel, minlength=256) for channel in pixels_CN]).double()
    values_V = torch.arange(256, dtype=torch.float64) / 255
    mean_C = (counts_CV * values_V).sum(1) / counts_CV.sum(1)
    variance_C = (counts_CV * (values_V - mean_C[:, None]) ** 2).sum(1) / counts_CV.sum(1)
    if ((counts_CV > 0).sum(1) == 1).any():
        raise ValueError("a channel of the training images is constant and cannot be standardised")
    return mean_C.float(), variance_C.sqrt().float()


def fit_zca(images_NCHW: Tensor) -> Whiten:
    """Fit ZCA whitening to uint8 images: their covariance becomes nearly the identity, and they still look like images.

    The whitened training images have mean 0 and variance 1 on average over the D values. Directions with a variance
    below `ZCA_EPSILON` times the average, mostly noise, stay small.

    Raises:
        ValueError: All images are the same, or they have more than `ZCA_MAX_VALUES` values.
    """
    if (images_NCHW == images_NCHW[:1]).all():
        raise ValueError("the training images are all the same and cannot be whitened")
    if images_NCHW[0].numel() > ZCA_MAX_VALUES:
        raise ValueError(
            f"data.normalization is zca: images of {images_NCHW[0].numel():,} values have too large a covariance; "
            f"at most {ZCA_MAX_VALUES:,} values are supported"
        )
    mean_D, covariance_DD = _moments(images_NCHW.flatten(1))
    eigenvalues_D, vectors_DD = torch.linalg.eigh(covariance_DD)
    eigenvalues_D = (eigenvalues_D / eigenvalues_D.mean()).clamp(min=0)
    whitened_D = eigenvalues_D / (eigenvalues_D + ZCA_EPSILON)  # variances after whitening, up to a factor
    gains_D = (covariance_DD.diagonal().mean() * (eigenvalues_D + ZCA_EPSILON) * whitened_D.mean()).rsqrt()
    return Whiten(mean_D.float(), ((vectors_DD * gains_D) @ vectors_DD.T).float())


def _moments(pixels_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and covariance of uint8 pixels, in units of pixel / 255, float64."""
    count, size = pixels_ND.shape
    mean_D = torch.zeros(size, dtype=torch.float64)
    products_DD = torch.zeros(size, size, dtype=torch.float64)
    for chunk in torch.split(pixels_ND, CHUNK_SIZE):
        values = chunk.to(torch.float32) / 255 - 0.5  # roughly centred, to keep precision in float32
        mean_D += values.sum(0, dtype=torch.float64) / count
        products_DD += (values.T @ values).double() / count
    return mean_D + 0.5, products_DD - mean_D[:, None] * mean_D

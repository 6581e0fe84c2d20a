"""Activation maximisation by plain gradient descent on the input of a network.

With the preset "simonyan" (Simonyan, Vedaldi and Zisserman, 2014, as the report describes it), x is the network's
input after normalisation, without bounds. From a seeded image of faint noise, it takes 1,000 plain steps of 0.33 times
the gradient of

    -1000 * unit + ||x||^2

A step multiplies x by 0.34 and adds 330 times the unit's gradient, so x converges to about 500 times that gradient:
its scale is meaningless, and pictures are contrast-stretched. The Fourier prior replaces ||x||^2 by the squared
distance of x's amplitudes from the mean amplitudes of the training images, which is ||x||^2 where those are 0. A prior
of weight W is multiplied by W, and the step is 0.33 / W, since it would diverge otherwise. The published weight, of
||x||^2, is 1. The right weight of the Fourier prior depends on how steep the network is: by default, it is the weight
at which the unit's gradient alone would move x half as far from 0 as an image of the mean spectrum is.

Shapes: N pictures, C channels, H rows, W columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipelines.explanation.figures import track
from pipelines.explanation.spectrum import spectral_distance
from pipelines.explanation.target import Target
from pipelines.explanation.units import Unit, unit_activations
from pipelines.runtime.errors import UserError

NOISE_STD = 0.1  # standard deviation of the initial noise
STRETCH_QUANTILES = (0.005, 0.995)  # of x, drawn black and white


def initial_noise(target: Target, seed: int) -> Tensor:
    """Return the image of faint noise that all pictures start from, shape (C, H, W)."""
    noise_CHW = torch.randn(target.input_shape, generator=torch.Generator().manual_seed(seed))
    return NOISE_STD * noise_CHW.to(target.device)


def balanced_weight(target: Target, units: Sequence[Unit], start_CHW: Tensor, mean_CHW: Tensor, scale: float) -> float:
    """Return the weight at which scale / (2 weight) * gradient is half as long as an image of the mean amplitudes.

    The gradient is taken at the start and averaged over the units. The weight is rounded to two digits.

    Raises:
        UserError: No unit has a gradient.
    """
    x_NCHW = start_CHW.repeat(len(units), 1, 1, 1).requires_grad_(True)
    (gradient_NCHW,) = torch.autograd.grad(unit_activations(target, units, x_NCHW).sum(), x_NCHW)
    gradient_norm = float(gradient_NCHW.flatten(1).norm(dim=1).mean())
    image_norm = float(mean_CHW.square().mean((1, 2)).sum().sqrt())  # Euclidean, by Parseval
    if not gradient_norm or not image_norm:
        raise UserError("--prior fourier: no unit has a gradient at the initial image; give --weight W")
    return float(f"{scale * gradient_norm / image_norm:.2g}")


def maximise_activation(
    target: Target,
    units: Sequence[Unit],
    start_CHW: Tensor,
    mean_CHW: Tensor | None,
    *,
    scale: float,
    weight: float,
    lr: float,
    steps: int,
) -> Tensor:
    """Minimise -scale * unit + weight * prior by gradient descent, one picture per unit; shape (N, C, H, W).

    Args:
        target: The network.
        units: All of one layer. Pixels outside a unit's receptive field do not change.
        start_CHW: The initial image.
        mean_CHW: Mean amplitudes, for the Fourier prior; None for ||x||^2.
        scale: Factor of the unit.
        weight: Factor of the prior.
        lr: Step size for a prior of weight 1.
        steps: Number of steps.

    Raises:
        UserError: The pictures diverge.
    """
    x_NCHW = start_CHW.repeat(len(units), 1, 1, 1)
    fields_N1HW = torch.stack([unit.receptive_field_HW for unit in units])[:, None].to(x_NCHW.device)
    for _ in track(range(steps), "1 picture" if len(units) == 1 else f"{len(units)} pictures"):
        x_NCHW.requires_grad_(True)
        prior_N = x_NCHW.square().sum((1, 2, 3)) if mean_CHW is None else spectral_distance(x_NCHW, mean_CHW)
        loss = (prior_N - scale / weight * unit_activations(target, units, x_NCHW)).sum()
        (gradient_NCHW,) = torch.autograd.grad(loss, x_NCHW)
        x_NCHW = (x_NCHW - lr * gradient_NCHW * fields_N1HW).detach()
    if not x_NCHW.isfinite().all():
        raise UserError(f"--lr {lr}: the pictures diverge; try a smaller step")
    return x_NCHW


def contrast_stretch(x_NCHW: Tensor) -> Tensor:
    """Stretch each picture to [0, 1], clipping only its few lowest and highest values."""
    limits = torch.quantile(x_NCHW.flatten(1), torch.tensor(STRETCH_QUANTILES, device=x_NCHW.device), dim=1)
    low_N, high_N = limits[:, :, None, None, None]
    stretched: Tensor = ((x_NCHW - low_N) / (high_N - low_N).clamp(min=1e-12)).clamp(0, 1)
    return stretched

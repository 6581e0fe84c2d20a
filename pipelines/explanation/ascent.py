"""Activation maximisation by plain gradient descent on the input of a network.

With the preset "simonyan" (Simonyan, Vedaldi and Zisserman, 2014, as the report has it) x is the input as the network
sees it, after normalisation, without bounds; from a seeded image of faint noise, 1,000 plain steps of 0.33 times the
gradient of

    -1000 * unit + ||x||^2

A step multiplies x by 0.34 and adds 330 times the unit's gradient, so x settles near 500 times that gradient: its size
says little, and pictures are stretched. The Fourier prior takes the place of ||x||^2: the squared distance of x's
amplitudes from the mean ones of the training images, which is ||x||^2 where those are 0. A prior of weight W counts W
times, and the step is 0.33 / W, or it would diverge. The published weight is that of ||x||^2, 1. What the Fourier prior
needs depends on how steep the network is: by default, the weight at which the unit's own pull would bring x half as far
from 0 as an image of the mean spectrum is.

Shapes: N pictures, C channels, H rows, W columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipelines.explanation import output, spectrum
from pipelines.explanation.target import Target
from pipelines.explanation.units import Unit, values
from pipelines.runtime.errors import UserError

START = 0.1  # standard deviation of the noise that x begins as
STRETCH = (0.005, 0.995)  # quantiles of x that are drawn black and white


def beginning(subject: Target, seed: int) -> Tensor:
    """The image of faint noise that all pictures begin as, shape (C, H, W)."""
    noise_CHW = torch.randn(subject.input_shape, generator=torch.Generator().manual_seed(seed))
    return START * noise_CHW.to(subject.device)


def balanced_weight(subject: Target, units: Sequence[Unit], start_CHW: Tensor, mean_CHW: Tensor, scale: float) -> float:
    """The weight at which a unit's pull, x = scale / (2 weight) * gradient, is half an image of the mean amplitudes.

    The gradient is that at the start, in the mean over the units; the weight has two digits.

    Raises:
        UserError: No unit has a gradient.
    """
    x_NCHW = start_CHW.repeat(len(units), 1, 1, 1).requires_grad_(True)
    (gradient_NCHW,) = torch.autograd.grad(values(subject, units, x_NCHW).sum(), x_NCHW)
    pull = float(gradient_NCHW.flatten(1).norm(dim=1).mean())
    image = float(mean_CHW.square().mean((1, 2)).sum().sqrt())  # its Euclidean norm, by Parseval
    if not pull or not image:
        raise UserError("--prior fourier: no unit answers to the image that it starts from; give --weight W")
    return float(f"{scale * pull / image:.2g}")


def descend(
    subject: Target,
    units: Sequence[Unit],
    start_CHW: Tensor,
    mean_CHW: Tensor | None,
    *,
    scale: float,
    weight: float,
    lr: float,
    steps: int,
) -> Tensor:
    """Plain gradient descent on all pictures at once, each for a unit of its own; shape (N, C, H, W).

    Args:
        subject: Has the units.
        units: All of one layer. What a unit cannot see stays as it was.
        start_CHW: What all begin as.
        mean_CHW: Mean amplitudes, for the Fourier prior; None for ||x||^2.
        scale: Of the unit.
        weight: Of the prior.
        lr: Step size, for a prior of weight 1.
        steps: How many.

    Raises:
        UserError: The numbers grow without bounds.
    """
    x_NCHW = start_CHW.repeat(len(units), 1, 1, 1)
    sees_N1HW = torch.stack([unit.sees_HW for unit in units])[:, None].to(x_NCHW.device)
    for _ in output.track(range(steps), "1 picture" if len(units) == 1 else f"{len(units)} pictures"):
        x_NCHW.requires_grad_(True)
        prior_N = x_NCHW.square().sum((1, 2, 3)) if mean_CHW is None else spectrum.distance(x_NCHW, mean_CHW)
        loss = (prior_N - scale / weight * values(subject, units, x_NCHW)).sum()
        (gradient_NCHW,) = torch.autograd.grad(loss, x_NCHW)
        x_NCHW = (x_NCHW - lr * gradient_NCHW * sees_N1HW).detach()
    if not x_NCHW.isfinite().all():
        raise UserError(f"--lr {lr}: the pictures grow without bounds; a smaller step may do")
    return x_NCHW


def stretch(x_NCHW: Tensor) -> Tensor:
    """Each picture to [0, 1], such that only its few lowest and highest values are cut off."""
    limits = torch.quantile(x_NCHW.flatten(1), torch.tensor(STRETCH, device=x_NCHW.device), dim=1)
    low_N, high_N = limits[:, :, None, None, None]
    stretched: Tensor = ((x_NCHW - low_N) / (high_N - low_N).clamp(min=1e-12)).clamp(0, 1)
    return stretched

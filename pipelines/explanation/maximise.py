"""`litlab explain maximise`: the input that maximises a unit, by gradient descent on the input; see ascent.py.

Shapes: N pictures, C channels, H rows, W columns.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.explanation.ascent import balanced_weight, contrast_stretch, initial_noise, maximise_activation
from pipelines.explanation.figures import draw_images
from pipelines.explanation.images import read_pixels
from pipelines.explanation.results import Explanation
from pipelines.explanation.settings import Prior, maximise_settings
from pipelines.explanation.spectrum import high_frequency_share, mean_amplitudes
from pipelines.explanation.target import Target
from pipelines.explanation.units import Unit, select_units, unit_activations
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger

MAX_BATCH = 100  # pictures in a batch,
MAX_BATCH_VALUES = 2_000_000  # and values of pixels: 13 pictures of 224 x 224
SPECTRUM_IMAGES = 5000


def maximise(
    target: Target,
    *,
    classes: Sequence[str] = (),
    layer: str | None = None,
    units: Sequence[str] = (),
    preset: str = "simonyan",
    prior: Prior = "norm",
    weight: float | None = None,
    scale: float | None = None,
    lr: float | None = None,
    steps: int | None = None,
    spectrum: Sequence[Path] = (),
    seed: int = 0,
) -> Explanation:
    """Find the input that maximises each class or unit: minimise -scale * unit + weight * prior.

    Args:
        target: The network.
        classes: Classes, by name or index; all by default.
        layer: A layer, instead of classes.
        units: Its units, "CHANNEL" or "CHANNEL,ROW,COLUMN"; by default all channels, at the middle position.
        preset: Gives scale, lr and steps that are None.
        prior: "norm" is ||x||^2; "fourier" the distance of the amplitude spectrum from the mean one of training images.
        weight: Factor of the prior. None is 1 for "norm", and measured for "fourier".
        scale: Factor of the unit.
        lr: Step size.
        steps: Number of steps.
        spectrum: Image files that replace the training images.
        seed: Seed of the initial noise.

    Raises:
        UserError: An option is out of range, a class, layer, unit or file does not exist, or the pictures diverge.
    """
    given: dict[str, Any] = {"weight": weight, "scale": scale, "lr": lr, "steps": steps}
    settings = maximise_settings(preset, prior, **given, has_spectrum=bool(spectrum))
    selected = select_units(target, classes, layer, units)
    reference_NCHW = _reference_images(target, spectrum, required=prior == "fourier")
    mean_CHW = None if prior == "norm" else mean_amplitudes(reference_NCHW)
    start_CHW = initial_noise(target, seed)
    batches = _batches(target, selected)
    if settings["weight"] is None:
        assert mean_CHW is not None
        settings["weight"] = balanced_weight(target, batches[0], start_CHW, mean_CHW, settings["scale"])
    x_NCHW = torch.cat([maximise_activation(target, batch, start_CHW, mean_CHW, **settings) for batch in batches])
    results = _measure(target, selected, start_CHW, x_NCHW, reference_NCHW)
    _warn_if_lower(results)
    titles = [
        f"{unit.name}\n{share:.2f}" for unit, share in zip(selected, results["high_frequency_share"], strict=True)
    ]
    figure, _ = draw_images(list(zip(contrast_stretch(x_NCHW), titles, strict=True)))
    numbers = {"preset": preset, "prior": prior, "seed": seed, **settings, **results}
    params: dict[str, Any] = {"classes": list(classes), "layer": layer, "unit": list(units), "spectrum": list(spectrum)}
    params |= {"preset": preset, "prior": prior, "seed": seed, **settings}
    title = _title(selected, layer, prior, all_units=not (classes or units), given={**given, "seed": seed})
    return Explanation(target, title, figure, numbers, params)


def _reference_images(target: Target, files: Sequence[Path], *, required: bool) -> Tensor:
    """Return normalised training images, or images from files; an empty tensor if there are none and none is needed."""
    pixels_NCHW = torch.zeros(0, *target.input_shape)
    if files:
        pixels_NCHW = torch.stack([read_pixels(target, path) for path in files])
    elif target.data is None and required:
        raise UserError(f"--prior fourier: {target.name} comes without training images; give --spectrum FILE ...")
    elif target.data is not None:
        try:
            pixels_NCHW = target.train_images(SPECTRUM_IMAGES)
        except UserError as error:
            if required:
                raise
            logger.warning("note: no training images to compare the high-frequency share with: %s", error)
    normalized_NCHW: Tensor = target.normalize(pixels_NCHW.to(target.device).float() / 255)
    return normalized_NCHW


def _batches(target: Target, units: Sequence[Unit]) -> list[Sequence[Unit]]:
    size = min(MAX_BATCH, max(1, MAX_BATCH_VALUES // math.prod(target.input_shape)))
    return [units[index : index + size] for index in range(0, len(units), size)]


@torch.no_grad()
def _measure(
    target: Target, units: Sequence[Unit], start_CHW: Tensor, x_NCHW: Tensor, reference_NCHW: Tensor
) -> dict[str, Any]:
    """Return activations before and after, high-frequency shares and sizes, also those of the reference images."""
    pictures = list(zip(units, x_NCHW, strict=True))
    shares = high_frequency_share(x_NCHW)
    numbers: dict[str, Any] = {
        "units": [unit.name for unit in units],
        "before": [float(unit_activations(target, [unit], start_CHW[None])) for unit in units],
        "after": [float(unit_activations(target, [unit], x_CHW[None])) for unit, x_CHW in pictures],
        "high_frequency_share": shares.tolist(),
        "mean_high_frequency_share": float(shares.mean()),
        "rms": x_NCHW.square().mean((1, 2, 3)).sqrt().tolist(),
    }
    if len(reference_NCHW):
        numbers["natural_high_frequency_share"] = float(high_frequency_share(reference_NCHW).mean())
        numbers["natural_rms"] = float(reference_NCHW.square().mean().sqrt())
    if units[0].layer is target.network:
        p = [float(target.network(x_CHW[None])[0].softmax(0)[unit.index[0]]) for unit, x_CHW in pictures]
        numbers["probability"] = p
        numbers["mean_probability"] = sum(p) / len(p)
    return numbers


def _warn_if_lower(numbers: Mapping[str, Any]) -> None:
    """Warn of activations that fell: the steps may be too long, as the published one is for many networks."""
    count = sum(after < before for before, after in zip(numbers["before"], numbers["after"], strict=True))
    if count:
        logger.warning(
            "note: the activation of %d of %d ended below its start; if the steps are too long, a larger --weight "
            "shortens them",
            count,
            len(numbers["units"]),
        )


def _title(
    units: Sequence[Unit], layer: str | None, prior: str, *, all_units: bool, given: Mapping[str, float | None]
) -> str:
    """Return the units and the options that are given and not 0."""
    count = f"all {len(units)}" if all_units else "several"
    names = [unit.name for unit in units] if len(units) <= 3 else [count]
    options = [f"{name} {value:g}" for name, value in given.items() if value]
    return " ".join(["maximise", f"layer {layer} unit" if layer else "class", *names, prior, *options])

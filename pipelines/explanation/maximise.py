"""`litlab explain maximise`: the input that a unit answers to most, by gradient descent on the input; see ascent.py.

Shapes: N pictures, C channels, H rows, W columns.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipelines.explanation import output, spectrum
from pipelines.explanation.ascent import balanced_weight, beginning, descend, stretch
from pipelines.explanation.images import of_file
from pipelines.explanation.target import COMMON, Target, parse
from pipelines.explanation.units import Unit, choose, values
from pipelines.runtime.errors import UserError

HELP = (
    """usage: litlab explain maximise RUN_ID [--class C ... | --layer L [--unit U ...]]

  --class C ...        classes, by number or name; all of them by default
  --layer L            a layer as litlab inspect names it, or conv2, fc1
  --unit U ...         its units: CHANNEL, or CHANNEL,ROW,COLUMN; all channels
                       by default; a channel alone means its middle position
  --preset simonyan    minimises -SCALE * unit + WEIGHT * prior; pictures are
                       made together, as many as memory is likely to hold
  --prior norm|fourier ||x||^2, or the distance of the amplitude spectrum from
                       the mean one of the training images
  --weight W           of the prior: 1 for norm; for fourier it is measured
  --scale 1000 --lr 0.33 --steps 1000   as published
  --spectrum FILE ...  other images than the training images"""
    + COMMON
)
PRESETS = {"simonyan": {"scale": 1000.0, "lr": 0.33, "steps": 1000}}
PRIORS = ("norm", "fourier")
MOST_TOGETHER = 100  # pictures in a batch,
MOST_VALUES = 2_000_000  # and values of pixels: 13 pictures of 224 x 224
SPECTRUM_IMAGES = 5000


def main(word: str, argv: Sequence[str]) -> int:
    """`litlab explain maximise RUN_ID ...`."""
    if {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    subject, options = parse(word, argv, _parser(word))
    chosen = {name: getattr(options, name) for name in ("weight", *PRESETS[options.preset], "seed")}
    _fill(options)
    units = choose(subject, options.layer, options.classes, options.unit)
    natural_NCHW = _natural(subject, options.spectrum, needed=options.prior == "fourier")
    mean_CHW = None if options.prior == "norm" else spectrum.mean_amplitudes(natural_NCHW)
    start_CHW = beginning(subject, options.seed)
    batches = _together(subject, units)
    if options.weight is None:
        assert mean_CHW is not None
        options.weight = balanced_weight(subject, batches[0], start_CHW, mean_CHW, options.scale)
    how = {name: getattr(options, name) for name in ("weight", *PRESETS[options.preset])}
    x_NCHW = torch.cat([descend(subject, batch, start_CHW, mean_CHW, **how) for batch in batches])
    numbers = _measure(subject, units, start_CHW, x_NCHW, natural_NCHW)
    _warn(numbers)
    settings = {"preset": options.preset, "prior": options.prior, "seed": options.seed, **how}
    figure, axes = output.grid(len(units), 10)
    for axis, unit, x_CHW, share in zip(axes, units, stretch(x_NCHW), numbers["high_frequency_share"], strict=True):
        output.show(axis, x_CHW, f"{unit.name}\n{share:.2f}")
    what = _what(word, units, options, {name: value for name, value in chosen.items() if value})
    output.keep(subject, what, figure, {**settings, **numbers}, options, _caption(subject, units, options, numbers))
    return 0


def _parser(word: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"litlab explain {word}", add_help=False, allow_abbrev=False)
    parser.add_argument("--class", dest="classes", nargs="+", default=[])
    parser.add_argument("--layer")
    parser.add_argument("--unit", nargs="+", default=[])
    parser.add_argument("--preset", choices=PRESETS, default="simonyan")
    parser.add_argument("--prior", choices=PRIORS, default="norm")
    parser.add_argument("--weight", type=float)
    parser.add_argument("--scale", type=float)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--spectrum", nargs="+", type=Path, default=[])
    return parser


def _fill(options: argparse.Namespace) -> None:
    """What was not given, from the preset."""
    for name, value in PRESETS[options.preset].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.weight is None and options.prior == "norm":
        options.weight = 1.0
    for name in ("scale", "lr", "steps", "weight"):
        if (getattr(options, name) or 0) <= 0 and (name != "weight" or options.weight is not None):
            raise UserError(f"--{name} {getattr(options, name)}: it must be above 0")
    if options.spectrum and options.prior != "fourier":
        raise UserError("--spectrum goes with --prior fourier")


def _natural(subject: Target, files: Sequence[Path], *, needed: bool) -> Tensor:
    """Training images, or the images of files, as the network sees them; none if there are none and none is needed."""
    if files:
        pixels = torch.stack([of_file(subject, path) for path in files])
    elif subject.data is None and needed:
        raise UserError(f"--prior fourier: {subject.name} comes without training images; give some by --spectrum FILE")
    else:
        pixels = _train_images(subject, needed=needed)
    seen: Tensor = subject.normalize(pixels.to(subject.device).float() / 255)
    return seen


def _train_images(subject: Target, *, needed: bool) -> Tensor:
    none = torch.zeros(0, *subject.input_shape)
    if subject.data is None:
        return none
    try:
        return subject.train_images(SPECTRUM_IMAGES)
    except UserError as error:
        if needed:
            raise
        print(f"litlab: note: no share of the training images to compare with: {error}", file=sys.stderr)
        return none


def _together(subject: Target, units: Sequence[Unit]) -> list[Sequence[Unit]]:
    """The units in batches."""
    size = min(MOST_TOGETHER, max(1, MOST_VALUES // math.prod(subject.input_shape)))
    return [units[index : index + size] for index in range(0, len(units), size)]


def _measure(
    subject: Target, units: Sequence[Unit], start_CHW: Tensor, x_NCHW: Tensor, natural_NCHW: Tensor
) -> dict[str, Any]:
    """Activations before and after, share of high frequencies, size; and of the training images the same."""
    with torch.no_grad():
        before = torch.cat([values(subject, [unit], start_CHW[None]) for unit in units])
        after = torch.cat([values(subject, [unit], x_CHW[None]) for unit, x_CHW in zip(units, x_NCHW, strict=True)])
        shares, natural = spectrum.high_share(x_NCHW), spectrum.high_share(natural_NCHW)
        numbers: dict[str, Any] = {
            "units": [unit.name for unit in units],
            "before": before.tolist(),
            "after": after.tolist(),
            "high_frequency_share": shares.tolist(),
            "mean_high_frequency_share": float(shares.mean()),
            "rms": x_NCHW.square().mean((1, 2, 3)).sqrt().tolist(),
        }
        if len(natural_NCHW):
            numbers["natural_high_frequency_share"] = float(natural.mean())
            numbers["natural_rms"] = float(natural_NCHW.square().mean().sqrt())
        if units[0].layer is subject.network:
            logits = [subject.network(x_CHW[None])[0] for x_CHW in x_NCHW]
            certain = [float(own.softmax(0)[unit.index[0]]) for own, unit in zip(logits, units, strict=True)]
            numbers["probability"] = certain
            numbers["mean_probability"] = sum(certain) / len(certain)
    return numbers


def _warn(numbers: dict[str, Any]) -> None:
    """Say so if steps may have been too long for the network, as the published one is for many."""
    fell = sum(after < before for before, after in zip(numbers["before"], numbers["after"], strict=True))
    if fell:
        said = f"{fell} of {len(numbers['units'])} answer less than at the start"
        print(f"litlab: note: {said}; if the steps are too long, a larger --weight shortens them", file=sys.stderr)


def _what(word: str, units: Sequence[Unit], options: argparse.Namespace, chosen: dict[str, Any]) -> str:
    few = [unit.name for unit in units] if len(units) <= 3 else []
    kind = f"layer {options.layer} unit" if options.layer else "class"
    named = " ".join([kind, *(few or [f"all {len(units)}" if not (options.classes or options.unit) else "several"])])
    return " ".join([word, named, options.prior, *(f"{name} {value:g}" for name, value in chosen.items())])


def _caption(subject: Target, units: Sequence[Unit], options: argparse.Namespace, numbers: dict[str, Any]) -> str:
    kind, kinds = ("unit", "units") if options.layer else ("class", "classes")
    which = f"{kind} {units[0].name}" if len(units) == 1 else f"{len(units)} {kinds}"
    where = f"{options.layer} of {subject.name}" if options.layer else subject.name
    formula = "||x||^2" if options.prior == "norm" else "distance from the mean amplitude spectrum"
    before, after = (sum(numbers[key]) / len(units) for key in ("before", "after"))
    natural = numbers.get("natural_high_frequency_share")
    words = [
        f"What {which} of {where} answer{'s' if len(units) == 1 else ''} to most: minimises {-options.scale:g} unit",
        f"+ {options.weight:g} {formula}, {options.steps} steps, seed {options.seed}; contrast stretched. Below each",
        "name, the share of the power above half the Nyquist frequency:",
        f"mean {numbers['mean_high_frequency_share']:.3f}",
        *([] if natural is None else [f"(training images {natural:.3f})"]),
        f"- mean activation {before:.3g} before, {after:.3g} after",
        *(
            [f"- probability of the class {min(numbers['probability']):.3f} or more"]
            if "probability" in numbers
            else []
        ),
    ]
    return " ".join(words).replace(" - ", "; ") + "."

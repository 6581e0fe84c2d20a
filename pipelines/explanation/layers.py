"""`litlab explain filters` and `activations`: the weights of a convolution, and what convolutions make of an image.

Shapes: N images, C channels, H rows, W columns.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.explanation import images, output
from pipelines.explanation.target import COMMON, Target, parse
from pipelines.runtime.errors import UserError

HELP = {
    "filters": """usage: litlab explain filters RUN_ID [--layer L]

Draws the weights of a convolution. Of the first one, a filter is drawn as the
network's input is, grey or RGB; of others, each of its planes, a row for each
filter, at most 16 by 16 of them.

  --layer L            as litlab inspect names it, or conv2 (conv1)"""
    + COMMON,
    "activations": """usage: litlab explain activations RUN_ID [--image IMAGE ...] [--layer L ...]

Draws what each channel of each convolution makes of an image, before anything
else is done to it: black is its lowest value in the layer, white its highest.
At most 64 channels of a layer.

  --layer L ...        as litlab inspect names them, or conv2 (all convolutions)"""
    + images.OPTIONS
    + COMMON,
}
MOST_PLANES = 16
MOST_CHANNELS = 64


def main(word: str, argv: Sequence[str]) -> int:
    """`litlab explain filters RUN_ID` and `litlab explain activations RUN_ID`."""
    if {"-h", "--help"} & set(argv):
        print(HELP[word])
        return 0
    parser = argparse.ArgumentParser(prog=f"litlab explain {word}", add_help=False, allow_abbrev=False)
    if word == "filters":
        parser.add_argument("--layer", default="conv1")
        subject, options = parse(word, argv, parser)
        filters(subject, options)
        return 0
    parser.add_argument("--layer", nargs="+", default=[])
    images.add_options(parser)
    subject, options = parse(word, argv, parser)
    if not options.image and options.images_per_class is None:
        options.image = ["0"]
    chosen = images.choose(subject, options)
    names = options.layer or [name for name in subject.short_names() if name.startswith("conv")]
    for number in range(len(chosen)):
        activations(subject, chosen, number, names, options)
    return 0


def filters(subject: Target, options: argparse.Namespace) -> None:
    """Draw and keep the weights of a convolution."""
    layer = subject.layer(options.layer)
    if not isinstance(layer, nn.Conv2d):
        raise UserError(f"--layer {options.layer}: a {type(layer).__name__} has no filters; conv1 has")
    weights_NCHW = layer.weight.detach().cpu()
    count, planes = weights_NCHW.shape[:2]
    drawn, columns = _panels(weights_NCHW, as_images=planes == subject.input_shape[0] and planes in (1, 3))
    figure, axes = output.grid(len(drawn), columns, size=0.6)
    for axis, picture_CHW in zip(axes, drawn, strict=True):
        output.show(axis, picture_CHW)
    norms_N = weights_NCHW.flatten(1).norm(dim=1)
    rows, width = weights_NCHW.shape[2:]
    caption = (
        f"{count} filters of {planes} x {rows} x {width} weights: {options.layer} of {subject.name}. "
        f"{len(drawn)} panels; grey is 0; each filter is stretched by its largest weight. Euclidean norm "
        f"{norms_N.min():.3g} to {norms_N.max():.3g}, mean {norms_N.mean():.3g}."
    )
    numbers = {"layer": options.layer, "shape": list(weights_NCHW.shape), "norms": norms_N.tolist()}
    output.keep(subject, f"filters {options.layer}", figure, numbers, options, caption)


def _panels(weights_NCHW: Tensor, *, as_images: bool) -> tuple[list[Tensor], int]:
    """Pictures in [0, 1] of shape (C, H, W), and how many make a row."""
    largest_N = weights_NCHW.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    shown_NCHW = weights_NCHW / largest_N / 2 + 0.5
    if as_images:
        return list(shown_NCHW), 16
    planes = shown_NCHW[:MOST_PLANES, :MOST_PLANES]
    return list(planes.flatten(0, 1)[:, None]), planes.shape[1]


def activations(
    subject: Target, chosen: images.Images, number: int, names: Sequence[str], options: argparse.Namespace
) -> None:
    """Draw and keep what the channels of these layers make of one of the images."""
    pixels_1CHW = chosen.pixels_NCHW[number : number + 1]
    outputs = {name: _maps(subject, name, pixels_1CHW) for name in names}
    columns = min(16, max(map(len, outputs.values())))
    panels = [(pixels_1CHW[0].cpu(), "input"), *[(None, "")] * (columns - 1)]
    for name, maps_CHW in outputs.items():
        low, high = maps_CHW.min(), maps_CHW.max()
        shown = [(map_HW[None] - low) / (high - low).clamp(min=1e-12) for map_HW in maps_CHW[:MOST_CHANNELS]]
        titles = [name, *[""] * (len(shown) - 1)]
        panels += [*zip(shown, titles, strict=True), *[(None, "")] * (-len(shown) % columns)]
    figure, axes = output.grid(len(panels), columns, size=0.7)
    for axis, (picture, title) in zip(axes, panels, strict=True):
        if picture is not None:
            output.show(axis, picture, title)
    numbers = {name: _facts(maps_CHW) for name, maps_CHW in outputs.items()}
    silent = ", ".join(f"{name} {fact['never_positive']} of {fact['channels']}" for name, fact in numbers.items())
    caption = (
        f"What the channels of {subject.name} make of {chosen.captions[number]}; black is a layer's lowest value, "
        f"white its highest, at most {MOST_CHANNELS} channels are drawn. Channels that are positive nowhere: {silent}."
    )
    source = str(chosen.sources[number]).rpartition("/")[2]
    what = " ".join(["activations image", source, *options.layer])
    output.keep(subject, what, figure, {"image": chosen.sources[number], "layers": numbers}, options, caption)


def _maps(subject: Target, name: str, pixels_1CHW: Tensor) -> Tensor:
    """The output of a layer for one image, shape (C, H, W), on the CPU."""
    with torch.no_grad():
        maps = subject.activations(name, pixels_1CHW)[0].cpu()
    if maps.ndim != 3:
        raise UserError(f"--layer {name}: its output has shape {tuple(maps.shape)} and no rows and columns to draw")
    return maps


def _facts(maps_CHW: Tensor) -> dict[str, Any]:
    return {
        "channels": len(maps_CHW),
        "size": list(maps_CHW.shape[1:]),
        "min": float(maps_CHW.min()),
        "mean": float(maps_CHW.mean()),
        "max": float(maps_CHW.max()),
        "positive_share": float((maps_CHW > 0).float().mean()),
        "never_positive": int((maps_CHW.amax((1, 2)) <= 0).sum()),
    }

"""`litlab explain saliency` and `gradcam`: which pixels, and which places of a convolution, speak for the class.

Both follow the logit of the class, through captum.

Shapes: N images, C channels, H rows, W columns.
"""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pipelines.explanation import classes, images, output
from pipelines.explanation.target import COMMON, Target, parse
from pipelines.runtime.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASS = """
  --class C            by number or name; the image's own, or without a label
                       the one that the network sees"""
HELP = {
    "saliency": """usage: litlab explain saliency RUN_ID [--image IMAGE ...] [--class C]

Draws how much each pixel would change the logit of the class: the size of its
gradient, the largest of the channels.
"""
    + CLASS
    + images.OPTIONS
    + COMMON,
    "gradcam": """usage: litlab explain gradcam RUN_ID [--image IMAGE ...] [--layer L]

Draws where a convolution finds what speaks for the class (Grad-CAM): its
channels, weighted by the mean gradient of the class's logit with respect to
each, added, and what is negative left out.

  --layer L            as litlab inspect names it, or conv2 (last convolution)"""
    + CLASS
    + images.OPTIONS
    + COMMON,
}


def main(word: str, argv: Sequence[str]) -> int:
    """`litlab explain saliency RUN_ID ...` and `litlab explain gradcam RUN_ID ...`."""
    if {"-h", "--help"} & set(argv):
        print(HELP[word])
        return 0
    parser = argparse.ArgumentParser(prog=f"litlab explain {word}", add_help=False, allow_abbrev=False)
    parser.add_argument("--class", dest="of_class")
    if word == "gradcam":
        parser.add_argument("--layer")
    images.add_options(parser)
    subject, options = parse(word, argv, parser)
    chosen = images.choose(subject, options)
    with torch.no_grad():
        p_NK = subject.probabilities(chosen.pixels_NCHW)
    classes_N = classes.of_images(chosen, p_NK)
    if options.of_class is not None:
        classes_N = torch.full_like(classes_N, classes.named(subject, "--class", options.of_class))
    if word == "saliency":
        maps_NHW, how = saliency(subject.whole(), chosen.pixels_NCHW, classes_N), "gradient of each pixel"
    else:
        layer = options.layer or _last_convolution(subject)
        maps_NHW, how = gradcam(subject, layer, chosen.pixels_NCHW, classes_N), f"Grad-CAM at {layer}"
    names = [subject.classes[number] for number in classes_N.tolist()]
    p_N = p_NK.gather(1, classes_N[:, None])[:, 0].tolist()
    rows = [
        {"image": source, "class": name, "probability": p, **_facts(map_HW)}
        for source, name, p, map_HW in zip(chosen.sources, names, p_N, maps_NHW, strict=True)
    ]
    caption = (
        f"{how[0].upper()}{how[1:]}, for the logit of the class that stands above each image, of {subject.name}. Left "
        f"the image, right the map over it: bright is much, each map has its own scale. Its strongest tenth of the "
        f"pixels holds {sum(row['in_top_tenth'] for row in rows) / len(rows):.0%} of a map, on average."
    )
    what = " ".join([word, getattr(options, "layer", None) or "", classes.in_short(chosen, options)])
    what += f" class {options.of_class}" if options.of_class is not None else ""
    figure = _picture(chosen.pixels_NCHW, maps_NHW, [f"{name}\n{p:.2f}" for name, p in zip(names, p_N, strict=True)])
    output.keep(subject, what, figure, {"how": how, "images": rows}, options, caption)
    return 0


def saliency(network: nn.Module, pixels_NCHW: Tensor, classes_N: Tensor) -> Tensor:
    """Largest absolute gradient, over the channels, of the class's logit at each pixel; shape (N, H, W), on the CPU."""
    from captum.attr import Saliency

    gradients_NCHW = Saliency(network).attribute(pixels_NCHW.clone().requires_grad_(), target=classes_N, abs=True)
    largest_NHW: Tensor = gradients_NCHW.detach().amax(1).cpu()
    return largest_NHW


def gradcam(subject: Target, layer: str, pixels_NCHW: Tensor, classes_N: Tensor) -> Tensor:
    """Grad-CAM of the class's logit at a layer, enlarged to the image; shape (N, H, W), on the CPU.

    Raises:
        UserError: The layer does not exist, or its output has no rows and columns.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    module = subject.layer(layer)
    with torch.no_grad():
        shape = tuple(subject.activations(layer, pixels_NCHW[:1]).shape)
    if len(shape) != 4:
        raise UserError(f"--layer {layer}: its output has shape {shape[1:]} and no rows and columns to draw")
    maps = LayerGradCam(subject.whole(), module).attribute(
        pixels_NCHW.clone().requires_grad_(), target=classes_N, relu_attributions=True
    )
    size = tuple(pixels_NCHW.shape[2:])
    enlarged_NHW: Tensor = LayerAttribution.interpolate(maps, size, "bilinear").detach()[:, 0].cpu()
    return enlarged_NHW


def _last_convolution(subject: Target) -> str:
    names = [name for name in subject.short_names() if name.startswith("conv")]
    if not names:
        raise UserError(f"{subject.name} has no convolution: Grad-CAM needs one; litlab explain saliency does not")
    return names[-1]


def _facts(map_HW: Tensor) -> dict[str, float]:
    """Where the map is highest, and the share of its sum that the tenth of its pixels with the most holds."""
    row, column = divmod(int(map_HW.argmax()), map_HW.shape[1])
    ordered = map_HW.flatten().sort(descending=True).values
    whole = float(ordered.sum())
    share = float(ordered[: max(1, len(ordered) // 10)].sum()) / whole if whole else 0.0
    return {"row": row, "column": column, "in_top_tenth": share}


def _picture(pixels_NCHW: Tensor, maps_NHW: Tensor, titles: Sequence[str]) -> "Figure":
    figure, axes = output.grid(2 * len(titles), min(10, 2 * len(titles)))
    for number, title in enumerate(titles):
        left, right = axes[2 * number : 2 * number + 2]
        output.show(left, pixels_NCHW[number], title)
        output.show(right, pixels_NCHW[number].mean(0, keepdim=True))
        right.imshow(maps_NHW[number].numpy(), cmap="inferno", alpha=0.65, interpolation="nearest")
    return figure

"""The methods of `litlab explain`: the help text, the options and the call of each. Imports nothing heavy."""

import importlib
import inspect
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipelines.commands.options import VerbParser
from pipelines.explanation.settings import (
    ATTACKS,
    FILLS,
    PRESETS,
    PRIORS,
    ImageSelection,
    attack_settings,
    check_attack_targets,
    check_occlusion,
    check_units,
    maximise_settings,
)

if TYPE_CHECKING:
    from pipelines.explanation.results import Explanation
    from pipelines.explanation.target import Target

ATTACKS_HELP = """nearest: gradient descent, reach --confidence, then minimise the distance from the image (the
default); published: minimise -STRENGTH * p(target) + ||x - x0||; fgsm, pgd: within --budget (no target: away from the
true class)"""
Load = Callable[[], "Target"]  # called after the options are checked, since it imports torch


class Method(NamedTuple):
    """A method of `litlab explain`.

    Attributes:
        module: Where the function of this name is, in pipelines.explanation. It takes a network and the options, of
            the same names.
        add_options: Adds the method's own options to a parser.
        summary: Its line in the overview.
        description: What it does, on its help page.
        check: Checks the options, before a network is loaded.
        images: The test images if none are named; by default the first of each class; None if the function selects.
    """

    module: str
    add_options: Callable[[VerbParser], None]
    summary: str
    description: str
    check: Callable[[Namespace, ImageSelection], object] = lambda options, selection: None
    images: Sequence[str] | None = ()


def explain(name: str, options: Namespace, load: Load) -> Iterator["Explanation"]:
    """Check the options, load the network, and call a method with the options that it takes.

    Args:
        name: A key of METHODS.
        options: The parsed options.
        load: Loads the network; called after the check, since it imports torch.
    """
    method, given = METHODS[name], vars(options)
    selection = ImageSelection(given.get("image", ()), given.get("images_per_class"), given.get("invert", False))
    method.check(options, selection)
    target = load()
    function = getattr(importlib.import_module(f"pipelines.explanation.{method.module}"), name)
    parameters = inspect.signature(function).parameters
    arguments = {key: value for key, value in given.items() if key in parameters}
    if "images" in parameters:
        from pipelines.explanation.images import select_images

        if selection.is_empty and method.images:
            selection = ImageSelection(method.images, invert=selection.invert)
        none = selection.is_empty and method.images is None
        arguments["images"] = None if none else select_images(target, selection)
    found = function(target, **arguments)
    yield from found if isinstance(found, Iterable) else [found]


def _maximise_options(parser: VerbParser) -> None:
    add = parser.add_argument
    add("--class", dest="classes", nargs="+", default=[], metavar="C", help="classes, by name or index (all)")
    add("--layer", metavar="L", help="a layer name as in litlab inspect, or conv2, fc1 ...")
    unit = "units of the layer (all channels): CHANNEL, the unit at the middle position, or CHANNEL,ROW,COLUMN"
    add("--unit", dest="units", nargs="+", default=[], metavar="U", help=unit)
    preset = "minimise -SCALE * unit + WEIGHT * prior, in batches that are likely to fit into memory"
    add("--preset", choices=PRESETS, default="simonyan", help=preset)
    prior = "||x||^2, or the distance of the amplitude spectrum from the mean spectrum of the training images"
    add("--prior", choices=PRIORS, default="norm", help=prior)
    add("--weight", type=float, metavar="W", help="weight of the prior (norm: 1; fourier: measured)")
    add("--scale", type=float, metavar="S", help="as published (1000)")
    add("--lr", type=float, metavar="RATE", help="as published (0.33)")
    add("--steps", type=int, metavar="N", help="as published (1000)")
    spectrum = "images that replace the training images"
    add("--spectrum", nargs="+", type=Path, default=[], metavar="FILE", help=spectrum)


def _adversarial_options(parser: VerbParser) -> None:
    add = parser.add_argument
    add("--target", dest="targets", nargs="+", default=[], metavar="C", help="classes, by name or index")
    add("--table", action="store_true", help="change the first test image of each class to every other")
    add("--method", choices=ATTACKS, default="nearest", metavar="METHOD", help=ATTACKS_HELP)
    add("--steps", type=int, metavar="N", help="for nearest and published (200), for pgd (20)")
    add("--lr", type=float, metavar="RATE", help="for nearest and published (0.01)")
    add("--strength", type=float, metavar="S", help="for published (500000 / 255), for nearest (1)")
    add("--confidence", type=float, metavar="P", help="probability of the target that nearest requires (0.6)")
    add("--budget", nargs="+", type=float, metavar="B", help="maximum change of a pixel in [0, 1] (0.03)")
    _image_options(parser)


def _occlusion_options(parser: VerbParser) -> None:
    add = parser.add_argument
    add("--block", type=int, default=4, metavar="SIZE", help="rows and columns of the block (%(default)s)")
    add("--stride", type=int, default=1, metavar="PIXELS", help="distance between two blocks (%(default)s)")
    add("--fill", choices=FILLS, default="black", help="fill of the block; mean is the image's mean colour")
    stroke = "count the minima on an object: on pixels brighter than LEVEL, from 0 to 1"
    add("--stroke", type=float, metavar="LEVEL", help=stroke)
    boxes = "or in a box: a YAML file with a line for each image, 12: [top, left, bottom, right], in pixels from 0"
    add("--boxes", type=Path, metavar="FILE", help=boxes)
    _image_options(parser)


def _saliency_options(parser: VerbParser) -> None:
    of_class = "name or index (default: the true class of each image; for a file, the predicted class)"
    parser.add_argument("--class", dest="of_class", metavar="C", help=of_class)
    _image_options(parser)


def _gradcam_options(parser: VerbParser) -> None:
    parser.add_argument("--layer", metavar="L", help="as in litlab inspect, or conv2 (the last convolution)")
    _saliency_options(parser)


def _filters_options(parser: VerbParser) -> None:
    parser.add_argument("--layer", default="conv1", metavar="L", help="as in litlab inspect, or conv2 (conv1)")


def _activations_options(parser: VerbParser) -> None:
    layer = "as in litlab inspect, or conv2 (all convolutions)"
    parser.add_argument("--layer", dest="layers", nargs="+", default=[], metavar="L", help=layer)
    _image_options(parser)


def _embedding_options(parser: VerbParser) -> None:
    add = parser.add_argument
    layer = "as in litlab inspect, or fc1 (the last but one fully connected layer, or the only one)"
    add("--layer", metavar="L", help=layer)
    add("--count", type=int, default=1000, metavar="N", help="random test images, if none are selected (1000)")
    add("--perplexity", type=float, metavar="P", help="for t-SNE (30; for few images, a quarter of their number)")
    _image_options(parser)


def _image_options(parser: VerbParser) -> None:
    add = parser.add_argument
    image = "test set indices, or files, converted to grey or RGB and resized as by litlab predict"
    add("--image", nargs="+", default=[], metavar="IMAGE", help=image)
    add("--images-per-class", type=int, metavar="N", help="the first N test images of each class instead (1)")
    invert = "for files that are dark on light, if the network was trained on light on dark"
    add("--invert", action="store_true", help=invert)


def _check_maximise(options: Namespace, _: ImageSelection) -> None:
    check_units(options.classes, options.layer, options.units)
    settings = {name: getattr(options, name) for name in ("weight", "scale", "lr", "steps")}
    maximise_settings(options.preset, options.prior, **settings, has_spectrum=bool(options.spectrum))


def _check_adversarial(options: Namespace, selection: ImageSelection) -> None:
    names = ("steps", "lr", "strength", "confidence", "budget")
    attack_settings(options.method, **{name: getattr(options, name) for name in names})
    check_attack_targets(options.method, options.targets, selection, table=options.table)


def _check_occlusion(options: Namespace, _: ImageSelection) -> None:
    check_occlusion(options.block, options.stride, stroke=options.stroke, has_boxes=options.boxes is not None)


METHODS = {
    "maximise": Method(
        "maximise",
        _maximise_options,
        "the input that maximises a class or a unit",
        "Find the input that maximises a class or a unit, by gradient descent.",
        _check_maximise,
    ),
    "adversarial": Method(
        "adversarial",
        _adversarial_options,
        "images changed slightly so that another class is predicted",
        "Change each --image slightly so that the network predicts each --target.",
        _check_adversarial,
    ),
    "occlusion": Method(
        "occlusion",
        _occlusion_options,
        "the probability of the class while a block is hidden",
        """Slide a block over each image and record the probability of its class; a pixel
of the map is the mean over the blocks that cover it. The minimum shows which
place matters most for the class. For a file, the predicted class is used.""",
        _check_occlusion,
    ),
    "saliency": Method(
        "attribution",
        _saliency_options,
        "the influence of each pixel on the class",
        """Draw the absolute gradient of the class's logit at each pixel; of several
channels, the largest value.""",
    ),
    "gradcam": Method(
        "attribution",
        _gradcam_options,
        "where a convolution supports the class",
        """Draw where a convolution supports the class (Grad-CAM): the sum of its channels,
weighted by the mean gradient of the class's logit, without negative values.""",
    ),
    "filters": Method(
        "layers",
        _filters_options,
        "the weights of a convolution",
        """Draw the weights of a convolution. A filter of the first convolution is drawn as
an image, grey or RGB. For other convolutions, each plane of a filter is drawn,
with one row for each filter, and at most 16 by 16.""",
    ),
    "activations": Method(
        "layers",
        _activations_options,
        "the output of each convolution for an image",
        """Draw the output of each channel of each convolution for an image (test image 0):
black is the lowest value of the layer, white the highest. At most 64 channels
of a layer are drawn.""",
        images=["0"],
    ),
    "embedding": Method(
        "embedding",
        _embedding_options,
        "test images in the plane, by the output of a layer",
        """Draw test images in the plane by the output of a layer: its first two principal
components, and t-SNE. Also computes the share of images whose 10 nearest
neighbours mostly belong to their own class, in the layer and in both planes.
For files, the predicted class replaces the true class.""",
        images=None,
    ),
}

"""The methods of `litlab explain`: the help text, the options and the call of each. Imports nothing heavy."""

from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
        add_options: Adds the method's own options to a parser.
        explain: Checks the options, loads the network and calls the method.
        summary: Its line in the overview.
        description: What it does, on its help page.
    """

    add_options: Callable[[VerbParser], None]
    explain: Callable[[Namespace, Load], "Iterable[Explanation]"]
    summary: str
    description: str


def _maximise_options(parser: VerbParser) -> None:
    add = parser.add_argument
    add("--class", dest="classes", nargs="+", default=[], metavar="C", help="classes, by name or index (all)")
    add("--layer", metavar="L", help="a layer name as in litlab inspect, or conv2, fc1 ...")
    unit = "units of the layer (all channels): CHANNEL, the unit at the middle position, or CHANNEL,ROW,COLUMN"
    add("--unit", nargs="+", default=[], metavar="U", help=unit)
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


def _maximise(options: Namespace, load: Load) -> "Iterable[Explanation]":
    settings = _values(options, "weight", "scale", "lr", "steps")
    check_units(options.classes, options.layer, options.unit)
    maximise_settings(options.preset, options.prior, **settings, has_spectrum=bool(options.spectrum))
    target = load()
    from pipelines.explanation.maximise import maximise

    settings |= _values(options, "classes", "layer", "preset", "prior", "spectrum", "seed")
    return [maximise(target, units=options.unit, **settings)]


def _adversarial_options(parser: VerbParser) -> None:
    add = parser.add_argument
    add("--target", nargs="+", default=[], metavar="C", help="classes, by name or index")
    add("--table", action="store_true", help="change the first test image of each class to every other")
    add("--method", choices=ATTACKS, default="nearest", metavar="METHOD", help=ATTACKS_HELP)
    add("--steps", type=int, metavar="N", help="for nearest and published (200), for pgd (20)")
    add("--lr", type=float, metavar="RATE", help="for nearest and published (0.01)")
    add("--strength", type=float, metavar="S", help="for published (500000 / 255), for nearest (1)")
    add("--confidence", type=float, metavar="P", help="probability of the target that nearest requires (0.6)")
    add("--budget", nargs="+", type=float, metavar="B", help="maximum change of a pixel in [0, 1] (0.03)")
    _image_options(parser)


def _adversarial(options: Namespace, load: Load) -> "Iterable[Explanation]":
    settings = _values(options, "steps", "lr", "strength", "confidence", "budget")
    selection = _selection(options)
    attack_settings(options.method, **settings)
    check_attack_targets(options.method, options.target, selection, table=options.table)
    target = load()
    from pipelines.explanation.adversarial import adversarial
    from pipelines.explanation.images import select_images

    settings |= _values(options, "table", "method")
    return adversarial(target, select_images(target, selection), targets=options.target, **settings)


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


def _occlusion(options: Namespace, load: Load) -> "Iterable[Explanation]":
    selection = _selection(options)
    check_occlusion(options.block, options.stride, stroke=options.stroke, has_boxes=options.boxes is not None)
    target = load()
    from pipelines.explanation.images import select_images
    from pipelines.explanation.occlusion import occlusion

    settings = _values(options, "block", "stride", "fill", "stroke", "boxes")
    return [occlusion(target, select_images(target, selection), **settings)]


def _saliency_options(parser: VerbParser) -> None:
    of_class = "name or index (default: the true class of each image; for a file, the predicted class)"
    parser.add_argument("--class", dest="of_class", metavar="C", help=of_class)
    _image_options(parser)


def _saliency(options: Namespace, load: Load) -> "Iterable[Explanation]":
    selection, target = _selection(options), load()
    from pipelines.explanation.attribution import saliency
    from pipelines.explanation.images import select_images

    return [saliency(target, select_images(target, selection), of_class=options.of_class)]


def _gradcam_options(parser: VerbParser) -> None:
    parser.add_argument("--layer", metavar="L", help="as in litlab inspect, or conv2 (the last convolution)")
    _saliency_options(parser)


def _gradcam(options: Namespace, load: Load) -> "Iterable[Explanation]":
    selection, target = _selection(options), load()
    from pipelines.explanation.attribution import gradcam
    from pipelines.explanation.images import select_images

    return [gradcam(target, select_images(target, selection), layer=options.layer, of_class=options.of_class)]


def _filters_options(parser: VerbParser) -> None:
    parser.add_argument("--layer", default="conv1", metavar="L", help="as in litlab inspect, or conv2 (conv1)")


def _filters(options: Namespace, load: Load) -> "Iterable[Explanation]":
    target = load()
    from pipelines.explanation.layers import filters

    return [filters(target, layer=options.layer)]


def _activations_options(parser: VerbParser) -> None:
    layer = "as in litlab inspect, or conv2 (all convolutions)"
    parser.add_argument("--layer", nargs="+", default=[], metavar="L", help=layer)
    _image_options(parser)


def _activations(options: Namespace, load: Load) -> "Iterable[Explanation]":
    selection = _selection(options)
    selection = ImageSelection(["0"], invert=selection.invert) if selection.is_empty else selection
    target = load()
    from pipelines.explanation.images import select_images
    from pipelines.explanation.layers import activations

    return activations(target, select_images(target, selection), layers=options.layer)


def _embedding_options(parser: VerbParser) -> None:
    add = parser.add_argument
    layer = "as in litlab inspect, or fc1 (the last but one fully connected layer, or the only one)"
    add("--layer", metavar="L", help=layer)
    add("--count", type=int, default=1000, metavar="N", help="random test images, if none are selected (1000)")
    add("--perplexity", type=float, metavar="P", help="for t-SNE (30; for few images, a quarter of their number)")
    _image_options(parser)


def _embedding(options: Namespace, load: Load) -> "Iterable[Explanation]":
    selection, target = _selection(options), load()
    from pipelines.explanation.embedding import embedding
    from pipelines.explanation.images import select_images

    images = None if selection.is_empty else select_images(target, selection)
    return [embedding(target, images, **_values(options, "layer", "count", "perplexity", "seed"))]


def _image_options(parser: VerbParser) -> None:
    add = parser.add_argument
    image = "test set indices, or files, converted to grey or RGB and resized as by litlab predict"
    add("--image", nargs="+", default=[], metavar="IMAGE", help=image)
    add("--images-per-class", type=int, metavar="N", help="the first N test images of each class instead (1)")
    invert = "for files that are dark on light, if the network was trained on light on dark"
    add("--invert", action="store_true", help=invert)


def _selection(options: Namespace) -> ImageSelection:
    return ImageSelection(options.image, options.images_per_class, options.invert)


def _values(options: Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names}


METHODS = {
    "maximise": Method(
        _maximise_options,
        _maximise,
        "the input that maximises a class or a unit",
        "Find the input that maximises a class or a unit, by gradient descent.",
    ),
    "adversarial": Method(
        _adversarial_options,
        _adversarial,
        "images changed slightly so that another class is predicted",
        "Change each --image slightly so that the network predicts each --target.",
    ),
    "occlusion": Method(
        _occlusion_options,
        _occlusion,
        "the probability of the class while a block is hidden",
        """Slide a block over each image and record the probability of its class; a pixel
of the map is the mean over the blocks that cover it. The minimum shows which
place matters most for the class. For a file, the predicted class is used.""",
    ),
    "saliency": Method(
        _saliency_options,
        _saliency,
        "the influence of each pixel on the class",
        """Draw the absolute gradient of the class's logit at each pixel; of several
channels, the largest value.""",
    ),
    "gradcam": Method(
        _gradcam_options,
        _gradcam,
        "where a convolution supports the class",
        """Draw where a convolution supports the class (Grad-CAM): the sum of its channels,
weighted by the mean gradient of the class's logit, without negative values.""",
    ),
    "filters": Method(
        _filters_options,
        _filters,
        "the weights of a convolution",
        """Draw the weights of a convolution. A filter of the first convolution is drawn as
an image, grey or RGB. For other convolutions, each plane of a filter is drawn,
with one row for each filter, and at most 16 by 16.""",
    ),
    "activations": Method(
        _activations_options,
        _activations,
        "the output of each convolution for an image",
        """Draw the output of each channel of each convolution for an image (test image 0):
black is the lowest value of the layer, white the highest. At most 64 channels
of a layer are drawn.""",
    ),
    "embedding": Method(
        _embedding_options,
        _embedding,
        "test images in the plane, by the output of a layer",
        """Draw test images in the plane by the output of a layer: its first two principal
components, and t-SNE. Also computes the share of images whose 10 nearest
neighbours mostly belong to their own class, in the layer and in both planes.
For files, the predicted class replaces the true class.""",
    ),
}

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

Load = Callable[[], "Target"]  # called after the options are checked, since it imports torch


class Method(NamedTuple):
    """A method of `litlab explain`.

    Attributes:
        help_text: What `--help` prints, before the options of all methods.
        add_options: Adds the method's own options to a parser.
        explain: Checks the options, loads the network and calls the method.
    """

    help_text: str
    add_options: Callable[[VerbParser], None]
    explain: Callable[[Namespace, Load], "Iterable[Explanation]"]


IMAGE_HELP = """
  --image IMAGE ...    test set indices, or files, converted to grey or RGB and
                       resized as by litlab predict
  --images-per-class N  the first N test images of each class instead (1)
  --invert             for files that are dark on light, if the network was
                       trained on light on dark"""
CLASS_HELP = """
  --class C            name or index (default: the true class of each image; for
                       a file, the predicted class)"""
MAXIMISE_HELP = """usage: litlab explain maximise RUN_ID [--class C ... | --layer L [--unit U ...]]

Find the input that maximises a class or a unit, by gradient descent.

  --class C ...        classes, by name or index (all)
  --layer L            a layer name as in litlab inspect, or conv2, fc1 ...
  --unit U ...         units of the layer (all channels): CHANNEL, the unit at
                       the middle position, or CHANNEL,ROW,COLUMN
  --preset simonyan    minimise -SCALE * unit + WEIGHT * prior, in batches that
                       are likely to fit into memory
  --prior norm|fourier ||x||^2, or the distance of the amplitude spectrum from
                       the mean spectrum of the training images
  --weight W           weight of the prior (norm: 1; fourier: measured)
  --scale S --lr RATE --steps N   as published (1000, 0.33, 1000)
  --spectrum FILE ...  images that replace the training images"""
ADVERSARIAL_HELP = """usage: litlab explain adversarial RUN_ID --image IMAGE ... --target C ...
       litlab explain adversarial RUN_ID --table

Change each image slightly so that the network predicts each target.

  --target C ...       classes, by name or index
  --table              change the first test image of each class to every other
  --method nearest     gradient descent: reach --confidence, then minimise the
                       distance from the image (the default)
           published   minimise -STRENGTH * p(target) + ||x - x0||
           fgsm, pgd   within --budget (no target: away from the true class)
  --steps N --lr RATE  for nearest and published (200, 0.01); steps for pgd (20)
  --strength S         for published (500000 / 255), for nearest (1)
  --confidence P       probability of the target that nearest requires (0.6)
  --budget B ...       maximum change of a pixel in [0, 1] (0.03)"""
OCCLUSION_HELP = """usage: litlab explain occlusion RUN_ID [--image IMAGE ...] [--block SIZE]

Slide a block over each image and record the probability of its class; a pixel
of the map is the mean over the blocks that cover it. The minimum shows which
place matters most for the class. For a file, the predicted class is used.

  --block SIZE         rows and columns of the block (4)
  --stride PIXELS      distance between two blocks (1)
  --fill black|mean    fill of the block; mean is the image's mean colour
  --stroke LEVEL       count the minima on an object: on pixels brighter than
                       LEVEL, from 0 to 1
  --boxes FILE         or in a box: a YAML file with a line for each image, such
                       as 12: [top, left, bottom, right], in pixels from 0"""
SALIENCY_HELP = """usage: litlab explain saliency RUN_ID [--image IMAGE ...] [--class C]

Draw the absolute gradient of the class's logit at each pixel; of several
channels, the largest value.
"""
GRADCAM_HELP = """usage: litlab explain gradcam RUN_ID [--image IMAGE ...] [--layer L]

Draw where a convolution supports the class (Grad-CAM): the sum of its channels,
weighted by the mean gradient of the class's logit, without negative values.

  --layer L            as in litlab inspect, or conv2 (the last convolution)"""
FILTERS_HELP = """usage: litlab explain filters RUN_ID [--layer L]

Draw the weights of a convolution. A filter of the first convolution is drawn as
an image, grey or RGB. For other convolutions, each plane of a filter is drawn,
with one row for each filter, and at most 16 by 16.

  --layer L            as in litlab inspect, or conv2 (conv1)"""
ACTIVATIONS_HELP = """usage: litlab explain activations RUN_ID [--image IMAGE ...] [--layer L ...]

Draw the output of each channel of each convolution for an image (test image 0):
black is the lowest value of the layer, white the highest. At most 64 channels
of a layer are drawn.

  --layer L ...        as in litlab inspect, or conv2 (all convolutions)"""
EMBEDDING_HELP = """usage: litlab explain embedding RUN_ID [--layer L] [--count N]

Draw test images in the plane by the output of a layer: its first two principal
components, and t-SNE. Also computes the share of images whose 10 nearest
neighbours mostly belong to their own class, in the layer and in both planes.
For files, the predicted class replaces the true class.

  --layer L            as in litlab inspect, or fc1 (the last but one fully
                       connected layer, or the only one)
  --count N            number of random test images, if none are selected (1000)
  --perplexity P       for t-SNE (30; for few images, a quarter of their number)"""


def _maximise_options(parser: VerbParser) -> None:
    parser.add_argument("--class", dest="classes", nargs="+", default=[])
    parser.add_argument("--layer")
    parser.add_argument("--unit", nargs="+", default=[])
    parser.add_argument("--preset", choices=PRESETS, default="simonyan")
    parser.add_argument("--prior", choices=PRIORS, default="norm")
    for name in ("--weight", "--scale", "--lr"):
        parser.add_argument(name, type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--spectrum", nargs="+", type=Path, default=[])


def _maximise(options: Namespace, load: Load) -> "Iterable[Explanation]":
    settings = _values(options, "weight", "scale", "lr", "steps")
    check_units(options.classes, options.layer, options.unit)
    maximise_settings(options.preset, options.prior, **settings, has_spectrum=bool(options.spectrum))
    target = load()
    from pipelines.explanation.maximise import maximise

    settings |= _values(options, "classes", "layer", "preset", "prior", "spectrum", "seed")
    return [maximise(target, units=options.unit, **settings)]


def _adversarial_options(parser: VerbParser) -> None:
    parser.add_argument("--target", nargs="+", default=[])
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--method", choices=ATTACKS, default="nearest")
    parser.add_argument("--steps", type=int)
    for name in ("--lr", "--strength", "--confidence"):
        parser.add_argument(name, type=float)
    parser.add_argument("--budget", nargs="+", type=float)
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
    parser.add_argument("--block", type=int, default=4)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--fill", choices=FILLS, default="black")
    parser.add_argument("--stroke", type=float)
    parser.add_argument("--boxes", type=Path)
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
    parser.add_argument("--class", dest="of_class")
    _image_options(parser)


def _saliency(options: Namespace, load: Load) -> "Iterable[Explanation]":
    selection, target = _selection(options), load()
    from pipelines.explanation.attribution import saliency
    from pipelines.explanation.images import select_images

    return [saliency(target, select_images(target, selection), of_class=options.of_class)]


def _gradcam_options(parser: VerbParser) -> None:
    _saliency_options(parser)
    parser.add_argument("--layer")


def _gradcam(options: Namespace, load: Load) -> "Iterable[Explanation]":
    selection, target = _selection(options), load()
    from pipelines.explanation.attribution import gradcam
    from pipelines.explanation.images import select_images

    return [gradcam(target, select_images(target, selection), layer=options.layer, of_class=options.of_class)]


def _filters_options(parser: VerbParser) -> None:
    parser.add_argument("--layer", default="conv1")


def _filters(options: Namespace, load: Load) -> "Iterable[Explanation]":
    target = load()
    from pipelines.explanation.layers import filters

    return [filters(target, layer=options.layer)]


def _activations_options(parser: VerbParser) -> None:
    parser.add_argument("--layer", nargs="+", default=[])
    _image_options(parser)


def _activations(options: Namespace, load: Load) -> "Iterable[Explanation]":
    selection = _selection(options)
    selection = ImageSelection(["0"], invert=selection.invert) if selection.is_empty else selection
    target = load()
    from pipelines.explanation.images import select_images
    from pipelines.explanation.layers import activations

    return activations(target, select_images(target, selection), layers=options.layer)


def _embedding_options(parser: VerbParser) -> None:
    parser.add_argument("--layer")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--perplexity", type=float)
    _image_options(parser)


def _embedding(options: Namespace, load: Load) -> "Iterable[Explanation]":
    selection, target = _selection(options), load()
    from pipelines.explanation.embedding import embedding
    from pipelines.explanation.images import select_images

    images = None if selection.is_empty else select_images(target, selection)
    return [embedding(target, images, **_values(options, "layer", "count", "perplexity", "seed"))]


def _image_options(parser: VerbParser) -> None:
    parser.add_argument("--image", nargs="+", default=[])
    parser.add_argument("--images-per-class", type=int)
    parser.add_argument("--invert", action="store_true")


def _selection(options: Namespace) -> ImageSelection:
    return ImageSelection(options.image, options.images_per_class, options.invert)


def _values(options: Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names}


METHODS = {
    "maximise": Method(MAXIMISE_HELP, _maximise_options, _maximise),
    "adversarial": Method(ADVERSARIAL_HELP + IMAGE_HELP, _adversarial_options, _adversarial),
    "occlusion": Method(OCCLUSION_HELP + IMAGE_HELP, _occlusion_options, _occlusion),
    "saliency": Method(SALIENCY_HELP + CLASS_HELP + IMAGE_HELP, _saliency_options, _saliency),
    "gradcam": Method(GRADCAM_HELP + CLASS_HELP + IMAGE_HELP, _gradcam_options, _gradcam),
    "filters": Method(FILTERS_HELP, _filters_options, _filters),
    "activations": Method(ACTIVATIONS_HELP + IMAGE_HELP, _activations_options, _activations),
    "embedding": Method(EMBEDDING_HELP + IMAGE_HELP, _embedding_options, _embedding),
}

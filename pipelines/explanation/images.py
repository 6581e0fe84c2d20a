"""The images that are looked at: of the test set by index or by class, or files."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from datamodules.images import read_image
from pipelines.explanation.target import Target
from pipelines.runtime.errors import UserError

OPTIONS = """
  --image IMAGE ...    indices of the test set, or files, which are made grey
                       or RGB and resized as litlab predict does
  --images-per-class N  the first N test images of each class instead (1)
  --invert             for files that are dark on light, where the network has
                       learnt light on dark"""


@dataclass(frozen=True)
class Images:
    """Images to look at.

    Attributes:
        pixels_NCHW: float32, 0 to 1, on the network's device.
        labels: The class of each; None for files.
        captions: What each is, in a few words.
        sources: Index of the test set, or path, of each.
    """

    pixels_NCHW: Tensor
    labels: list[int | None]
    captions: list[str]
    sources: list[int | str]

    def __len__(self) -> int:
        return len(self.captions)


def add_options(parser: argparse.ArgumentParser) -> None:
    """--image, --images-per-class and --invert, which `choose` reads."""
    parser.add_argument("--image", nargs="+", default=[])
    parser.add_argument("--images-per-class", type=int)
    parser.add_argument("--invert", action="store_true")


def choose(subject: Target, options: argparse.Namespace) -> Images:
    """The images that were asked for; without --image, the first test images of each class, ordered by class.

    Raises:
        UserError: An index or a file does not exist, or there is no test set.
    """
    if options.image and options.images_per_class is not None:
        raise UserError("--image and --images-per-class: one of them")
    if options.image:
        return _named(subject, options.image, invert=options.invert)
    count = 1 if options.images_per_class is None else options.images_per_class
    if count < 1:
        raise UserError(f"--images-per-class {count}: 1 or more")
    labels_N = subject.test_set()[1]
    first = [torch.nonzero(labels_N == number).flatten()[:count] for number in range(len(subject.classes))]
    return _named(subject, [str(int(index)) for index in torch.cat(first)], invert=False)


def _named(subject: Target, names: Sequence[str], *, invert: bool) -> Images:
    pixels: list[Tensor] = []
    labels: list[int | None] = []
    captions: list[str] = []
    sources: list[int | str] = []
    for name in names:
        if name.isdecimal():
            image, label = _of_test_set(subject, int(name))
            captions.append(f"test image {int(name)}: {subject.classes[label]}")
            labels.append(label)
            sources.append(int(name))
        else:
            image = of_file(subject, Path(name))
            image = 255 - image if invert else image
            captions.append(Path(name).name)
            labels.append(None)
            sources.append(name)
        pixels.append(image)
    return Images((torch.stack(pixels).float() / 255).to(subject.device), labels, captions, sources)


def _of_test_set(subject: Target, index: int) -> tuple[Tensor, int]:
    images, labels = subject.test_set()
    if index >= len(labels):
        raise UserError(f"--image {index}: the test set has {len(labels):,} images, 0 to {len(labels) - 1}")
    return images[index], int(labels[index])


def of_file(subject: Target, path: Path) -> Tensor:
    """uint8 pixels of the network's input shape; the file is made grey or RGB and resized.

    Raises:
        UserError: It is not there, or no image.
    """
    try:
        return read_image(path, subject.input_shape)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error

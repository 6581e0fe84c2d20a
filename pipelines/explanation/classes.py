"""Classes of the images that are looked at, and as options name them.

Shapes: N images, K classes.
"""

import argparse

import torch
from torch import Tensor

from pipelines.explanation.images import Images
from pipelines.explanation.target import Target
from pipelines.runtime.errors import UserError


def named(subject: Target, option: str, name: str) -> int:
    """The number of a class that an option gives by name or number.

    Raises:
        UserError: There is no such class.
    """
    if name in subject.classes:
        return subject.classes.index(name)
    if name.isdecimal() and int(name) < len(subject.classes):
        return int(name)
    shown = ", ".join(subject.classes[:20]) + (", ..." if len(subject.classes) > 20 else "")
    raise UserError(f"{option} {name}: the classes are {shown}, or 0 to {len(subject.classes) - 1}")


def of_images(chosen: Images, p_NK: Tensor) -> Tensor:
    """The true class of each image; where it is unknown, the one that the network sees. Shape (N,)."""
    seen_N = p_NK.argmax(1)
    known = [int(seen) if label is None else label for label, seen in zip(chosen.labels, seen_N, strict=True)]
    return torch.tensor(known, device=p_NK.device)


def in_short(chosen: Images, options: argparse.Namespace) -> str:
    """Which images, for the name of a look."""
    if options.image:
        return "image " + " ".join(str(source).rpartition("/")[2] for source in chosen.sources)
    return f"{options.images_per_class or 1} of each class"

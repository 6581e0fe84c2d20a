"""The images that are explained: of the test set, by index or by class, or from files.

Shapes: N images, C channels, H rows, W columns, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipelines.explanation.settings import ImageSelection
from pipelines.explanation.target import Target
from pipelines.runtime.errors import UserError


@dataclass(frozen=True)
class Images:
    """Images to explain.

    Attributes:
        pixels_NCHW: float32, 0 to 1, on the network's device.
        labels: The true class of each; None for files.
        sources: Index of the test set, or path, of each.
        selection: How they were selected.
    """

    pixels_NCHW: Tensor
    labels: list[int | None]
    sources: list[int | str]
    selection: ImageSelection

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def description(self) -> str:
        """Which images these are, for the title of an explanation."""
        if self.selection.image:
            return "image " + " ".join(map(file_name, self.sources))
        return f"{self.selection.images_per_class or 1} of each class"

    def true_or_predicted(self, predictions_NK: Tensor) -> Tensor:
        """Return the true class of each image, or the predicted one of files; shape (N,).

        Args:
            predictions_NK: Logits or probabilities.
        """
        predicted = predictions_NK.argmax(1).tolist()
        classes = [guess if label is None else label for label, guess in zip(self.labels, predicted, strict=True)]
        return torch.tensor(classes, device=predictions_NK.device)


def select_images(target: Target, selection: ImageSelection | None = None) -> Images:
    """Load the selected images; by default the first test image of each class, ordered by class.

    Raises:
        UserError: An index or a file does not exist, or there is no test set.
    """
    selection = selection or ImageSelection()
    if selection.image:
        return _load(target, selection.image, selection)
    count = selection.images_per_class or 1
    labels_N = target.test_set()[1]
    if (labels_N < 0).all():
        raise UserError(f"the data of {target.name} have no classes: select images by index, --image 0 1")
    first = [torch.nonzero(labels_N == number).flatten()[:count] for number in range(len(target.classes))]
    return _load(target, [str(int(index)) for index in torch.cat(first)], selection)


def _load(target: Target, names: Sequence[str], selection: ImageSelection) -> Images:
    loaded = [_read(target, name, invert=selection.invert) for name in names]
    pixels_NCHW = torch.stack([pixels_CHW for pixels_CHW, _, _ in loaded]).float() / 255
    labels, sources = [label for _, label, _ in loaded], [source for _, _, source in loaded]
    return Images(pixels_NCHW.to(target.device), labels, sources, selection)


def _read(target: Target, name: str, *, invert: bool) -> tuple[Tensor, int | None, int | str]:
    """Return the uint8 pixels of an image, its label if it has one, and its source."""
    if not name.isdecimal():
        pixels_CHW = read_pixels(target, Path(name))
        return (255 - pixels_CHW if invert else pixels_CHW), None, name
    images, labels = target.test_set()
    index = int(name)
    if index >= len(labels):
        raise UserError(f"--image {index}: the test set has {len(labels):,} images, 0 to {len(labels) - 1}")
    label = int(labels[index])
    return images[index], None if label < 0 else label, index


def read_pixels(target: Target, path: Path) -> Tensor:
    """Read an image file as uint8 pixels of the network's input shape, converted to grey or RGB and resized.

    Raises:
        UserError: The file does not exist, or is not an image.
    """
    try:
        return target.read(path)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


def file_name(source: int | str) -> str:
    """Return the last part of a path, or an index as text."""
    return str(source).rpartition("/")[2]

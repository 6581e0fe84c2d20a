"""Find image files and decode them to tensors."""

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor


def read_image(path: Path, shape: tuple[int, int, int], *, resize: bool = True) -> Tensor:
    """Decode an image file to uint8 pixels of the given shape (C, H, W), with C = 1 (greyscale) or 3 (RGB).

    With `resize`, an image of another size is resized bilinearly, without keeping its aspect ratio.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not an image, is damaged, or has the wrong size and `resize` is off.
    """
    channels, height, width = shape
    pixels = open_image(path, channels)
    if pixels.size != (width, height):
        if not resize:
            raise ValueError(f"{path}: {pixels.width} pixels wide and {pixels.height} high, not {width} and {height}")
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    array_HWC = np.asarray(pixels, dtype=np.uint8).reshape(height, width, channels)
    return torch.from_numpy(array_HWC.transpose(2, 0, 1).copy())


def open_image(path: Path, channels: int) -> Image.Image:
    """Decode an image file to 8-bit greyscale (1 channel) or RGB (3 channels).

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not an image, or is damaged.
    """
    try:
        with Image.open(path) as image:
            image_8bit = _to_8_bits(image) if image.mode.startswith("I;16") else image
            return image_8bit.convert({1: "L", 3: "RGB"}[channels])
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (UnidentifiedImageError, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable image ({error})") from error


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale a greyscale image of 16 bits per pixel to 8 bits. Pillow's conversion would clip it to white."""
    return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))


def image_names(folder: Path, suffixes: Collection[str]) -> list[str]:
    """Return the image files in a folder and its subfolders, sorted, as relative paths with "/".

    Hidden files and folders are skipped. Links are followed, but no folder is visited twice, nor any parent of the
    given folder, so that link loops end.

    Args:
        folder: Folder to search.
        suffixes: Suffixes of image files, in lower case with the dot; the case of a file's suffix does not matter.

    Raises:
        OSError: A folder cannot be read.
    """
    visited = set(folder.resolve().parents)
    endings, names = tuple(suffixes), []
    for root, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        current = Path(root)
        if current.resolve() in visited:
            folders.clear()
            continue
        visited.add(current.resolve())
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        prefix = "" if current == folder else f"{current.relative_to(folder).as_posix()}/"
        names += [prefix + name for name in files if not name.startswith(".") and name.lower().endswith(endings)]
    return sorted(names)


def _raise(error: OSError) -> None:
    raise error

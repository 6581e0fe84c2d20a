"""Image files to tensors."""

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor


def read_image(path: Path, shape: tuple[int, int, int], *, resize: bool = True) -> Tensor:
    """Decode an image file to uint8 pixels of the given shape (C, H, W), C 1 (grey) or 3 (RGB).

    An image of another size is squashed, bilinearly, so that its aspect ratio is not kept; without `resize`, refused.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not an image, or is damaged, or must have the right size and has not.
    """
    channels, height, width = shape
    try:
        with Image.open(path) as image:
            whole = _to_8_bits(image) if image.mode.startswith("I;16") else image
            pixels = whole.convert({1: "L", 3: "RGB"}[channels])
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (UnidentifiedImageError, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable image ({error})") from error
    if pixels.size != (width, height):
        if not resize:
            raise ValueError(f"{path}: {pixels.width} pixels wide and {pixels.height} high, not {width} and {height}")
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    array_HWC = np.asarray(pixels, dtype=np.uint8).reshape(height, width, channels)
    return torch.from_numpy(array_HWC.transpose(2, 0, 1).copy())


def _to_8_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits per pixel, scaled; Pillow's own conversion would clip it to white."""
    return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))


def image_names(folder: Path, suffixes: Collection[str]) -> list[str]:
    """The image files in a folder and in the folders in it, sorted, as paths from it with "/".

    Hidden files and folders are left out. Links are followed, but no folder is entered twice, nor one that the given
    folder lies in: loops end.

    Args:
        folder: Where to look.
        suffixes: What counts as an image, in small letters with the dot; capitals in a file's name do not matter.

    Raises:
        OSError: A folder cannot be read.
    """
    entered = {_identity(parent) for parent in folder.resolve().parents}
    names = []
    for where, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        here = Path(where)
        if _identity(here) in entered:
            folders.clear()
            continue
        entered.add(_identity(here))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        prefix = "" if here == folder else f"{here.relative_to(folder).as_posix()}/"
        names += [prefix + name for name in files if not name.startswith(".") and _suffix(name) in suffixes]
    return sorted(names)


def _raise(error: OSError) -> None:
    raise error


def _identity(folder: Path) -> tuple[int, int]:
    """The same for two paths of one folder."""
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def _suffix(name: str) -> str:
    return name[name.rfind(".") :].lower()

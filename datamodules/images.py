"""Find image files and decode them. Imports no torch, for the processes of `datamodules.decoding`."""

import contextlib
import os
import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError
from PIL.ImageFile import ImageFile

if TYPE_CHECKING:
    from torch import Tensor

Pixels = npt.NDArray[np.uint8]

GROUND = "white"  # behind transparent pixels
DEEP_FORMATS = ("PNG", "PPM", "JPEG2000")  # Pillow scales their greyscale of more than 8 bits to 16
WHITE_IS_ZERO, SIGNED = 0, 2  # values of TIFF's tags PhotometricInterpretation and SampleFormat
PNG_BIT_DEPTH = 24  # position in the file
_UNREADABLE = (
    UnidentifiedImageError,
    ValueError,
    OSError,
    SyntaxError,
    struct.error,
    TypeError,
    Image.DecompressionBombError,
)


def read_image(path: Path, shape: tuple[int, int, int], *, resize: bool = True) -> "Tensor":
    """Decode an image file to a tensor, as `read_pixels` does."""
    import torch

    return torch.from_numpy(read_pixels(path, shape, resize=resize))


def read_pixels(path: Path, shape: tuple[int, int, int], *, resize: bool) -> Pixels:
    """Decode an image file to uint8 pixels of the given shape (C, H, W), with C = 1 (greyscale) or 3 (RGB).

    With `resize`, an image of another size is resized bilinearly, without keeping its aspect ratio.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not an image, is damaged, or has the wrong size and `resize` is off.
    """
    channels, height, width = shape
    image = open_image(path, channels)
    if image.size != (width, height):
        if not resize:
            raise ValueError(f"{path}: {image.width} pixels wide and {image.height} high, not {width} and {height}")
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    array_HWC = np.asarray(image, dtype=np.uint8).reshape(height, width, channels)
    return array_HWC.transpose(2, 0, 1).copy()


def open_image(path: Path, channels: int) -> Image.Image:
    """Decode an image file to 8-bit greyscale (1 channel) or RGB (3 channels).

    EXIF orientation is applied. Transparent pixels are composited on white. Greyscale of 12 or 16 bits is scaled to
    8 bits. Palettes and other colour spaces, such as CMYK, are converted. Of an animation, or of a file with several
    pages, the first image is read.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not an image, is damaged, or does not tell the range of its pixels.
    """
    try:
        # Given a path, Pillow 13 would map an uncompressed TIFF to memory, and confuse its rows if it is rotated.
        with path.open("rb") as file, Image.open(file) as image:
            return _to_8_bits(image, file).convert({1: "L", 3: "RGB"}[channels])
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except _UNREADABLE as error:
        raise ValueError(f"{path}: not a readable image ({error})") from error


def _to_8_bits(image: ImageFile, file: BinaryIO) -> Image.Image:
    """Return an opened image in its orientation, with 8 bits per channel and without transparency.

    Raises:
        ValueError: The range of the pixels, or the colour that is transparent, is unknown.
    """
    white, is_inverted = _range(image)
    _scale_transparent_colour(image, file)
    image.load()
    with contextlib.suppress(Exception):  # damaged EXIF data raise errors of many kinds; viewers ignore them too
        ImageOps.exif_transpose(image, in_place=True)
    pixels: Image.Image = image
    if white != 255:
        values = np.asarray(image).astype(np.int64)
        scaled = (white - values if is_inverted else values) * 255 // white
        pixels = Image.fromarray(scaled.astype(np.uint8))
        if "transparency" in image.info:
            pixels.putalpha(Image.fromarray(255 * (values != image.info["transparency"]).astype(np.uint8)))
    if not pixels.has_transparency_data:
        return pixels.convert("RGB") if pixels.mode == "LAB" else pixels  # Pillow does not convert LAB to L
    return Image.alpha_composite(Image.new("RGBA", pixels.size, GROUND), pixels.convert("RGBA"))


def _range(image: ImageFile) -> tuple[int, bool]:
    """Return the highest value that a channel can have, which is white, and whether Pillow leaves it as black.

    Raises:
        ValueError: It is unknown: of floats, signed numbers, or 32 bits.
    """
    tags: Mapping[int, Any] = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    is_signed = SIGNED in np.atleast_1d(tags.get(TiffImagePlugin.SAMPLEFORMAT, ()))
    is_deep = image.mode in ("I", "F") or image.mode.startswith("I;16")
    if not is_deep and not is_signed:
        return 255, False
    if image.mode != "F" and image.format in DEEP_FORMATS:
        return 65535, False
    if image.mode.startswith("I;16") and tags:
        bits = int(np.max(tags[TiffImagePlugin.BITSPERSAMPLE]))
        return 2**bits - 1, tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO
    kind = "floats" if image.mode == "F" else "signed" if is_signed else f"mode {image.mode}"
    raise ValueError(f"the range of its pixels is unknown: {kind}; save it with 8 or 16 unsigned bits per pixel")


def _scale_transparent_colour(image: ImageFile, file: BinaryIO) -> None:
    """Scale the transparent colour of a PNG to 8 bits. Pillow scales the pixels only.

    Raises:
        ValueError: The colour has 16 bits per channel, of which Pillow reads 8: several colours may be equal to it.
    """
    if image.format != "PNG" or image.mode not in ("L", "RGB") or "transparency" not in image.info:
        return
    position = file.tell()
    file.seek(PNG_BIT_DEPTH)
    bits = file.read(1)[0]
    file.seek(position)
    if bits > 8:
        raise ValueError("one of its colours of 16 bits per channel is transparent; save it with an alpha channel")
    if image.mode == "L":
        image.info["transparency"] = image.info["transparency"] * 255 // (2**bits - 1)


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

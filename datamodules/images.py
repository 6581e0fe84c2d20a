"""Image files to tensors."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor


def read_image(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """Decode an image file to uint8 pixels of the given shape (C, H, W), C 1 (grey) or 3 (RGB); resized if need be.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not an image, or is damaged.
    """
    channels, height, width = shape
    try:
        with Image.open(path) as image:
            whole = _to_8_bits(image) if image.mode.startswith("I;16") else image
            pixels = whole.convert({1: "L", 3: "RGB"}[channels])
            if pixels.size != (width, height):
                pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (UnidentifiedImageError, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable image ({error})") from error
    array_HWC = np.asarray(pixels, dtype=np.uint8).reshape(height, width, channels)
    return torch.from_numpy(array_HWC.transpose(2, 0, 1).copy())


def _to_8_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits per pixel, scaled; Pillow's own conversion would clip it to white."""
    return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))

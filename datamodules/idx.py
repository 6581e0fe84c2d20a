"""Strict reader of IDX files, the format of MNIST (http://yann.lecun.com/exdb/mnist).

An IDX file is a big-endian header (two zero bytes, a type code, the number of dimensions, then each dimension as a
32-bit integer), followed by the values. Only unsigned bytes (type 8), as in MNIST, are supported.
"""

import hashlib
import math
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.paths import no_such

UNSIGNED_BYTE = 0x08


def read_idx(path: Path, *, dimensions: int, sha256: str | None = None) -> Tensor:
    """Read the values of an IDX file as a uint8 tensor.

    Args:
        path: Uncompressed file.
        dimensions: Expected number of dimensions: 3 for images, 1 for labels.
        sha256: Expected SHA-256 of the whole file; None accepts any content.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The header, the length or the hash is wrong. The message says which.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(no_such(path)) from None
    header_size = 4 + 4 * dimensions
    if len(content) < header_size:
        raise ValueError(f"{path}: {len(content)} bytes, too short for an IDX header of {header_size} bytes")
    magic = struct.unpack(">I", content[:4])[0]
    expected_magic = UNSIGNED_BYTE << 8 | dimensions
    if magic != expected_magic:
        raise ValueError(
            f"{path}: not the IDX file expected here (magic number {magic:#010x}, not {expected_magic:#010x})"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:header_size])
    _check_length(path, len(content) - header_size, shape)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path}: the content is damaged (its SHA-256 is not that of the official file)")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header_size).reshape(shape).copy())


def _check_length(path: Path, length: int, shape: tuple[int, ...]) -> None:
    expected = math.prod(shape)
    if length == expected:
        return
    problem = "truncated" if length < expected else "too long"
    raise ValueError(f"{path}: {problem} ({length} bytes of values; its header says {expected} for shape {shape})")

"""Load many image files into one tensor, decoded once and cached in the user's cache folder.

A cache file is an array in NumPy's .npy format, which `numpy.load` reads, followed by a checksum of 32 bytes: the
SHA-256 of everything that the pixels depend on and of the pixels themselves. If the checksum does not match, because an
image has changed or the file is damaged, the images are decoded again and the file is replaced.

Shapes: N images, C channels, H rows, W columns.
"""

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError

import numpy as np
import PIL
import torch
from filelock import FileLock
from rich.console import Console
from rich.progress import track
from torch import Tensor

from datamodules.decoding import Decoder, parallel
from datamodules.images import Pixels

DECODER_VERSION = 2  # of `read_pixels`; increase it to invalidate all cache files
CHUNK_SIZE = 64  # images per task of a thread or process that decodes


def load_images(folder: Path, names: Sequence[str], shape: tuple[int, int, int], *, resize: bool) -> Tensor:
    """Return uint8 pixels of shape (N, C, H, W), in the order of the names; from the cache if no image has changed.

    A change is another list of names, or another size or modification time of a file. If the cache is not writable, the
    function warns, and decodes the images each time.

    Args:
        folder: Folder of the images. Each combination of folder, shape and `resize` has its own cache file.
        names: Image files, as paths relative to the folder.
        shape: Channels (1 or 3), rows and columns of each returned image.
        resize: Whether to resize images of another size, without keeping the aspect ratio; if not, they are an error.

    Raises:
        FileNotFoundError: An image does not exist, or is a broken link.
        ValueError: A file is not an image, is damaged or has the wrong size. The message names the file.
    """
    path, fingerprint = cache_file(folder, shape, resize=resize), _fingerprint(folder, names, shape, resize)
    pixels = _read(path, fingerprint)
    if pixels is None:
        with _lock(path) as writable:
            pixels = _read(path, fingerprint)  # another process may have written it in the meantime
            if pixels is None:
                pixels = _decode_all(folder, names, shape, resize)
                if writable:
                    _write(path, fingerprint, pixels)
    return torch.from_numpy(pixels)


def cache_file(folder: Path, shape: tuple[int, int, int], *, resize: bool) -> Path:
    """Return the cache file of a folder, in `$XDG_CACHE_HOME/litlab` or `~/.cache/litlab`."""
    settings = hashlib.sha256(os.fsencode(folder.resolve()) + repr((shape, resize)).encode()).hexdigest()
    home = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(home) if Path(home).is_absolute() else Path("~/.cache").expanduser()  # as in the XDG specification
    return cache / "litlab" / f"images-{settings[:16]}.npy"


def _fingerprint(folder: Path, names: Sequence[str], shape: tuple[int, int, int], resize: bool) -> bytes:
    """Return a digest of everything that the pixels depend on, without reading the images."""
    hasher = hashlib.sha256(repr((DECODER_VERSION, PIL.__version__, shape, resize)).encode())
    for name in names:
        try:
            stat = os.stat(f"{folder}/{name}")  # noqa: PTH116, thousands of Path objects would take 0.5 s
        except OSError as error:
            raise FileNotFoundError(f"{folder / name}: {error.strerror}") from error
        hasher.update(os.fsencode(name) + b"\0%d %d\0" % (stat.st_size, stat.st_mtime_ns))
    return hasher.digest()


def _checksum(fingerprint: bytes, pixels: Pixels) -> bytes:
    hasher = hashlib.sha256(fingerprint)
    hasher.update(pixels.reshape(-1).data)
    return hasher.digest()


def _read(path: Path, fingerprint: bytes) -> Pixels | None:
    """Return the pixels of a cache file, or None if it is missing, damaged or out of date."""
    try:
        with path.open("rb") as file:
            pixels, checksum = np.lib.format.read_array(file), file.read()
    except (OSError, ValueError, TokenError):  # TokenError: a damaged header, from Python 3.12 on
        return None
    return pixels if checksum == _checksum(fingerprint, pixels) else None


def _write(path: Path, fingerprint: bytes, pixels: Pixels) -> None:
    """Write a cache file atomically: readers never see an incomplete file."""
    partial_file = path.with_suffix(".part")
    try:
        with partial_file.open("wb") as file:
            np.lib.format.write_array(file, pixels)
            file.write(_checksum(fingerprint, pixels))
            file.flush()
            os.fsync(file.fileno())
        partial_file.replace(path)
    except OSError as error:
        _warn(path, error)
    finally:
        with suppress(OSError):
            partial_file.unlink(missing_ok=True)


@contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Let one process at a time decode for a cache file; yield False if the cache folder is not writable."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError) as error:  # NotImplementedError: file system without locks
        _warn(path, error)
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _warn(path: Path, error: Exception) -> None:
    warnings.warn(f"decoded images are not cached: {path.parent} is not writable ({error})", stacklevel=2)


def _decode_all(folder: Path, names: Sequence[str], shape: tuple[int, int, int], resize: bool) -> Pixels:
    """Decode images on all cores. If several are damaged, the error names the first."""
    pixels_NCHW = np.empty((len(names), *shape), dtype=np.uint8)
    console = Console(stderr=True)
    console.print(f"decoding {len(names):,} images in {folder}", highlight=False, markup=False, soft_wrap=True)
    starts = range(0, len(names), CHUNK_SIZE)
    with parallel(Decoder(folder, shape, resize), len(names)) as (decode, threads):

        def fill(start: int) -> None:
            pixels_NCHW[start : start + CHUNK_SIZE] = decode(names[start : start + CHUNK_SIZE])

        pool = ThreadPoolExecutor(threads)
        try:
            tasks = pool.map(fill, starts)
            for _ in track(tasks, "", len(starts), console=console, transient=True, disable=not console.is_terminal):
                pass
        finally:
            pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, pending tasks do not start
    return pixels_NCHW

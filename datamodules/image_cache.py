"""Many image files to one tensor, decoded once and kept in the user's cache folder.

What is kept is one file: an array in NumPy's .npy format, which `numpy.load` reads, followed by 32 bytes, the seal: the
SHA-256 of everything that the pixels depend on and of the pixels themselves. Where the seal is not the one expected,
because an image has changed or the file is damaged, the images are decoded again and the file is replaced.

Shapes: N images, C channels, H rows, W columns.
"""

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
import torch
from filelock import FileLock
from rich.console import Console
from rich.progress import track
from torch import Tensor

from datamodules.images import read_image

Pixels = npt.NDArray[np.uint8]

VERSION = 1  # of the decoding: another number makes every cache file stale
SEAL_BYTES = 32
AT_A_TIME = 64  # images that a thread decodes before it takes the next ones


def decode(folder: Path, names: Sequence[str], shape: tuple[int, int, int], *, resize: bool) -> Tensor:
    """uint8 pixels of shape (N, C, H, W), in the order of the names; from the cache where nothing has changed.

    "Changed" means another list of names, or another size or modification time of a file. Where the cache cannot be
    written, a warning says so and the images are decoded each time.

    Args:
        folder: Where the images are. Each folder, shape and `resize` has one cache file.
        names: Image files, as paths from the folder.
        shape: Channels (1 or 3), rows and columns of each image that comes out.
        resize: Squash images of another size to it; if not, refuse them.

    Raises:
        FileNotFoundError: There is no such image, or it is a link to none.
        ValueError: A file is not an image, or is damaged, or has another size; the message names the file.
    """
    batch = (len(names), *shape)
    header, stamp = _npy_header(batch), _stamp(folder, names, shape, resize)
    path = cache_file(folder, shape, resize=resize)
    pixels = _read(path, header, stamp)
    if pixels is None:
        with _alone(path) as writable:
            pixels = _read(path, header, stamp)  # another process may have written it meanwhile
            if pixels is None:
                pixels = _decode_all(folder, names, shape, resize)
                if writable:
                    _write(path, header, stamp, pixels)
    return torch.from_numpy(pixels.reshape(batch))


def cache_file(folder: Path, shape: tuple[int, int, int], *, resize: bool) -> Path:
    """Where the decoded images of a folder are kept: `$XDG_CACHE_HOME/litlab` or `~/.cache/litlab`."""
    settings = hashlib.sha256(os.fsencode(folder.resolve()) + repr((shape, resize)).encode()).hexdigest()
    home = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(home) if Path(home).is_absolute() else Path("~/.cache").expanduser()  # the XDG specification's rule
    return cache / "litlab" / f"images-{settings[:16]}.npy"


def _stamp(folder: Path, names: Sequence[str], shape: tuple[int, int, int], resize: bool) -> bytes:
    """Everything that the pixels depend on, short of reading the images."""
    state = hashlib.sha256(repr((VERSION, PIL.__version__, shape, resize)).encode())
    for name in names:
        try:
            stat = os.stat(f"{folder}/{name}")  # noqa: PTH116, thousands of Path objects take half a second
        except OSError as error:
            raise FileNotFoundError(f"{folder / name}: {error.strerror}") from error
        state.update(os.fsencode(name) + b"\0%d %d\0" % (stat.st_size, stat.st_mtime_ns))
    return state.digest()


def _npy_header(shape: tuple[int, ...]) -> bytes:
    file = BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


def _seal(stamp: bytes, pixels: Pixels) -> bytes:
    state = hashlib.sha256(stamp)
    state.update(pixels.data)
    return state.digest()


def _read(path: Path, header: bytes, stamp: bytes) -> Pixels | None:
    """The pixels, flat, of a cache file that is whole and up to date."""
    try:
        content = np.fromfile(path, np.uint8)
    except OSError:
        return None
    start, pixels, seal = np.split(content, [len(header), -SEAL_BYTES])
    whole = start.tobytes() == header and seal.tobytes() == _seal(stamp, pixels)
    return pixels if whole else None


def _write(path: Path, header: bytes, stamp: bytes, pixels: Pixels) -> None:
    """Put a cache file in the place of an older one, at once: no reader finds half a file."""
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            for content in (header, pixels.data, _seal(stamp, pixels)):
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        _warn(path, error)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """One process at a time decodes for a cache file; the others wait, and find it written. False where none can be."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError) as error:  # not implemented: a file system without locks
        _warn(path, error)
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _warn(path: Path, error: Exception) -> None:
    warnings.warn(f"decoded images are not kept: {path.parent} cannot be written ({error})", stacklevel=2)


def _decode_all(folder: Path, names: Sequence[str], shape: tuple[int, int, int], resize: bool) -> Pixels:
    """Decode on all cores; of several damaged images, the error names the first."""
    pixels_NCHW = torch.empty((len(names), *shape), dtype=torch.uint8)

    def fill(start: int) -> None:
        for index, name in enumerate(names[start : start + AT_A_TIME], start):
            pixels_NCHW[index] = read_image(folder / name, shape, resize=resize)

    console = Console(stderr=True)
    console.print(f"decoding {len(names):,} images in {folder}", highlight=False, markup=False, soft_wrap=True)
    starts = range(0, len(names), AT_A_TIME)
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        done = pool.map(fill, starts)
        for _ in track(done, "", len(starts), console=console, transient=True, disable=not console.is_terminal):
            pass
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, what has not begun never does
    return pixels_NCHW.numpy()

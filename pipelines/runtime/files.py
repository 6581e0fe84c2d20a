"""Files that several processes of one machine share: locks and atomic writes."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file_lock(path: Path | str, *, timeout: float = -1, remove: bool = False) -> Iterator[None]:
    """Hold a lock file. Its folder is created.

    Args:
        path: The lock file; the system releases the lock if the process dies.
        timeout: Seconds to wait for another process; -1 waits for ever, 0 not at all.
        remove: Whether to delete the file at the end, for locks whose name is not used again.

    Raises:
        TimeoutError: Another process holds the lock.
        OSError: The file cannot be written.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=timeout)
    except Timeout as error:
        raise TimeoutError(f"{path} is locked by another process") from error
    try:
        yield
    finally:
        if remove:
            with contextlib.suppress(OSError):  # Windows does not delete an open file
                path.unlink()
        lock.release()


def write_atomically(
    path: Path,
    content: "str | bytes | memoryview",
    *,
    mode: int | None = None,
    place: Callable[[Path, Path], object] = Path.replace,
) -> None:
    """Replace a file in one step: readers see the old or the new content, even after a power cut. Creates the folder.

    Args:
        path: The file.
        content: Text is encoded as UTF-8.
        mode: Permissions of the new file; None keeps those of the old one, or else takes the default.
        place: Moves the temporary file, its first argument, to `path`, its second.

    Raises:
        OSError: The file cannot be written; the old one is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    if mode is None and path.exists():
        mode = path.stat().st_mode & 0o777
    try:
        part.unlink(missing_ok=True)
        if mode is not None:
            part.touch(mode=0o600)
            with contextlib.suppress(OSError):  # some network file systems have no permissions
                part.chmod(mode)
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        place(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """Return the temporary file that a file is written to before it takes its place."""
    return path.with_name(f".{path.name}.part")


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def disk_use(folders: Iterable[Path]) -> int:
    """Return the bytes of all files in these folders. A file with several names (hard links) counts once."""
    sizes = {}
    for path in (path for folder in folders for path in folder.rglob("*")):
        with contextlib.suppress(OSError):  # deleted meanwhile
            if not path.is_dir():
                found = path.stat(follow_symlinks=False)
                sizes[found.st_dev, found.st_ino] = found.st_size
    return sum(sizes.values())

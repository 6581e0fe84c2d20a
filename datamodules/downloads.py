"""What a download that fails leaves behind."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def no_empty_folders(*folders: Path) -> Iterator[None]:
    """On an error, remove the folders that the block has created and that are empty. Outer folders come first."""
    created = [folder for folder in folders if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in reversed(created):
            with contextlib.suppress(OSError):  # it has files
                folder.rmdir()
        raise

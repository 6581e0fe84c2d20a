"""The folder of an agent. One that is killed leaves its folder, which the next agent of the machine removes."""

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipelines.runtime.files import file_lock

PREFIX = "litlab-agent-"
CODE = "code"  # link to the unpacked source files of the project


@contextlib.contextmanager
def agent_folder(code: str | None = None) -> Iterator[Path]:
    """Create a folder for job files and logs, and delete it at the end.

    Args:
        code: Another folder, which is deleted with it.
    """
    folder = Path(tempfile.gettempdir(), f"{PREFIX}{secrets.token_hex(8)}")
    with file_lock(_lock_of(folder), remove=True):  # before the folder exists: others remove one that is not locked
        folder.mkdir(mode=0o700)
        _remove_abandoned(folder)
        if code is not None:
            (folder / CODE).symlink_to(code)
        try:
            yield folder
        finally:
            _remove(folder)


def _remove_abandoned(own: Path) -> None:
    """Remove the folders of this user whose agent has died; the system has released its lock.

    Folders of other users are left alone: the link in one of them could lead to files of this user.
    """
    user = own.lstat().st_uid
    for folder in own.parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # its agent lives, or another agent has removed it
            if folder != own and folder.is_dir() and folder.lstat().st_uid == user:
                with file_lock(_lock_of(folder), timeout=0, remove=True):
                    _remove(folder)


def _remove(folder: Path) -> None:
    code = folder / CODE
    if code.is_symlink():
        shutil.rmtree(code.readlink(), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)  # a training that is ending may still write


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")

"""The list of checkpoints that this user has written, by SHA-256: they may be unpickled in full.

The list is in the user's own state folder, so that neither a copied run nor a tracking store can extend it. Only files
that contain more than tensors and plain values have an entry.
"""

import hashlib
import os
import sys
from pathlib import Path

from pipelines.runtime.files import file_lock, write_atomically

STATE_VARIABLE = "LITLAB_STATE"  # environment variable: another folder
MAX_ENTRIES = 100_000  # of 65 bytes; when there are more, the oldest are forgotten
_KEPT = 80_000


def state_folder() -> Path:
    """Return the folder of this user's state: `LITLAB_STATE`, or the usual place of the platform."""
    if given := os.environ.get(STATE_VARIABLE):
        return Path(given)
    if sys.platform == "darwin":
        return Path("~/Library/Application Support/litlab").expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path("~/AppData/Local").expanduser()) / "litlab"
    home = os.environ.get("XDG_STATE_HOME", "")
    state = Path(home) if Path(home).is_absolute() else Path("~/.local/state").expanduser()  # as in the specification
    return state / "litlab"


def remember(content: "bytes | memoryview") -> None:
    """Record the content of a checkpoint that this process is about to write.

    Raises:
        OSError, RuntimeError: The list cannot be written, or there is no home folder.
    """
    path = _list()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = hashlib.sha256(content).hexdigest()
    with file_lock(path.with_suffix(".lock")):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "w") as file:
            file.write(digest + "\n")
        lines = path.stat().st_size // 65
        if lines > MAX_ENTRIES:
            write_atomically(path, "".join(path.read_text().splitlines(keepends=True)[-_KEPT:]), mode=0o600)


def is_known(content: bytes) -> bool:
    """Return whether this user has written a checkpoint with this content on this machine."""
    try:
        path = _list()
        facts = path.stat()
        if os.name == "posix" and (facts.st_uid != os.getuid() or facts.st_mode & 0o022):
            return False  # others can write it
        return hashlib.sha256(content).hexdigest() in path.read_text().split()
    except (OSError, RuntimeError):
        return False


def _list() -> Path:
    return state_folder() / "checkpoints.sha256"

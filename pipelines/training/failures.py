"""What the machine did to a run, in words for the one who can mend it."""

import errno
import re
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
_PEERS = re.compile(r"by peer|Broken pipe|remote worker|NCCL|gloo")


def diagnose(error: BaseException | None, folder: Path, processes: int) -> str | None:
    """What to mend, if an error comes from the disk, or from another process of the training; None if not.

    Args:
        error: Whatever was raised; the cause may be behind it.
        folder: Where the run writes, for an error that names no file.
        processes: How many train together.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return f"no space left in {_place(error, folder)}: make some"
        if isinstance(error, OSError) and error.errno in _CLOSED:
            return f"{_place(error, folder)} cannot be written: {error.strerror}"
        if isinstance(error, RuntimeError) and processes > 1 and _PEERS.search(str(error)):
            lost = str(error).splitlines()[0].partition("]")[2].strip()[:200] or str(error)[:200]
            return f"one of the {processes} processes that train together is gone: {lost}"
        error = error.__cause__ or error.__context__
    return None


def _place(error: OSError, folder: Path) -> Path:
    return Path(str(error.filename)).parent if error.filename else folder

"""Why a run failed, and what the user can do about it."""

import errno
import re
from pathlib import Path

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
_LOST_PEER = re.compile(r"by peer|Broken pipe|remote worker|NCCL|gloo")


class RunFailedError(RuntimeError):
    """A run failed; the message says why. The original error is the cause.

    Attributes:
        run_id: The run, whose status is FAILED.
        resume_command: The command that continues the run, or "" if it would fail again.
        refused: Whether model and data reject the configuration, so that it is the user's mistake.
        explained: Whether the message is sufficient without a traceback.
        has_metrics: Whether metrics were logged before the failure; they are kept.
        to_mend: Whether a file of the user failed before there was anything to continue from.
    """

    def __init__(
        self,
        message: str,
        run_id: str,
        *,
        resume_command: str,
        refused: bool,
        explained: bool,
        has_metrics: bool,
        to_mend: bool = False,
    ) -> None:
        super().__init__(message)
        self.run_id, self.resume_command = run_id, resume_command
        self.refused, self.explained, self.has_metrics = refused, explained, has_metrics
        self.to_mend = to_mend

    @property
    def advice(self) -> str:
        """How to go on; "" if the user has to find out."""
        if self.to_mend:
            return "No epoch was finished: correct the error and run the same command again"
        return f"To continue: {self.resume_command}" if self.resume_command else ""


def diagnose(error: BaseException | None, folder: Path, processes: int) -> str | None:
    """Explain an error of the disk or of another process of the training; None for any other error.

    Args:
        error: The exception; its causes are searched too.
        folder: Folder of the run, for an error that names no file.
        processes: Number of processes of the training.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return f"no space left in {_folder_of(error, folder)}; free some space"
        if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
            return f"{_folder_of(error, folder)} cannot be written: {error.strerror}"
        if isinstance(error, RuntimeError) and processes > 1 and _LOST_PEER.search(str(error)):
            details = str(error).splitlines()[0].partition("]")[2].strip()[:200] or str(error)[:200]
            return f"one of the {processes} training processes is gone: {details}"
        error = error.__cause__ or error.__context__
    return None


def _folder_of(error: OSError, folder: Path) -> Path:
    return Path(str(error.filename)).parent if error.filename else folder

"""Checkpoint files: written atomically, and verified before they are loaded.

torch's format is a ZIP archive, with a checksum for each part.
"""

import os
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.fabric.plugins import CheckpointIO

from pipelines.checkpoints import known_files
from pipelines.checkpoints.serialize import serialize
from pipelines.checkpoints.unpickle import DamagedCheckpointError, unpickle
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import part_of, sync_folder, write_atomically
from pipelines.runtime.log import logger

if TYPE_CHECKING:
    from pipelines.tracking.store import StoredRun

CHECKPOINT_FOLDER = "checkpoints"
BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
STATE_KEY = "litlab"  # key of litlab's own state in a checkpoint
OLD_DIGEST_SUFFIX = ".sha256"  # of the digest files that earlier versions wrote
MAX_OTHER_CHECKPOINTS = 3  # of the user's callbacks that are read to resume from
QUARANTINE_SUFFIX = ".damaged"
ARCHIVE_END = b"PK\x05\x06" + bytes(18)  # size and signature of the last record of a ZIP archive without a comment


class AtomicCheckpointIO(CheckpointIO):
    """Lightning plugin that saves checkpoints atomically. Saving `last.ckpt` renames the old one to `previous.ckpt`.

    Args:
        trust: See `load_checkpoint`.
        needed: See `load_checkpoint`.
    """

    def __init__(self, *, trust: bool = False, needed: Collection[str] | None = None) -> None:
        self._trust, self._needed = trust, needed

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        content, is_plain = serialize(checkpoint)
        if not is_plain:
            _remember(content)  # before the file is there: a kill in between must not leave one that is not loaded
        write_checkpoint(content, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Load to the CPU, whatever `map_location` and `weights_only` are."""
        return load_checkpoint(Path(path), trust=self._trust, needed=self._needed)

    def remove_checkpoint(self, path: str | Path) -> None:
        remove_checkpoint(Path(path))


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint that training can resume from.

    Attributes:
        path: The checkpoint file.
        epoch: Index of its last complete epoch.
        batches: Number of batches that were trained on in the next epoch.
        step: Global step, for a checkpoint within an epoch; else None.
        state: litlab's own state in it.
    """

    path: Path
    epoch: int
    batches: int
    step: int | None
    state: dict[str, Any]

    @classmethod
    def of(cls, path: Path, content: Mapping[str, Any]) -> "ResumePoint":
        """Return the point of a loaded checkpoint.

        Raises:
            KeyError: litlab did not save it.
        """
        state = content[STATE_KEY]
        if within := state.get("within_epoch"):
            position = within[0]["position"]
            return cls(path, position["epoch"] - 1, position["batches"], content["global_step"], state)
        return cls(path, int(content["epoch"]), 0, None, state)

    def is_best_of(self, state: Mapping[str, Any]) -> bool:
        """Return whether it is the best checkpoint that litlab's state in another one names."""
        epoch = self.epoch if self.step is None else self.epoch + 1
        return (epoch, self.step) == (state["best_epoch"], state.get("best_step"))


def write_checkpoint(content: "bytes | memoryview", path: Path) -> None:
    """Write a checkpoint atomically: a reader finds the old or the new one, even after a power cut.

    Raises:
        OSError: The file cannot be written; the old one is unchanged.
    """

    def place(part: Path, target: Path) -> None:
        if target.name == LAST and target.is_file():
            _replace(target, target.with_name(PREVIOUS))
        _replace(part, target)

    write_atomically(path, content, place=place)
    sync_folder(path.parent)


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy a checkpoint: as a hard link, or as a second file where the file system has no links."""
    part = part_of(target)
    part.unlink(missing_ok=True)
    try:
        part.hardlink_to(source)
    except OSError:  # a file system without links
        write_checkpoint(source.read_bytes(), target)
        return
    try:
        _replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(target.parent)


def remove_checkpoint(path: Path) -> None:
    """Delete a checkpoint, if it exists."""
    for name in (path, _old_digest_path(path)):
        name.unlink(missing_ok=True)


def discard_checkpoints(folder: Path, keep: str) -> None:
    """Delete the checkpoints of a finished run that are not to be kept: "all" keeps the best and the last."""
    discarded = {"all": (), "best": (LAST,), "none": (BEST, LAST)}[keep]
    for name in (PREVIOUS, *discarded):  # the previous one is only needed to resume
        remove_checkpoint(folder / name)


def find_corruption(path: Path) -> str | None:
    """Return what is wrong with a checkpoint file, or None if it is intact.

    Raises:
        UserError: The file does not exist, or may not be read.
    """
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            if broken := archive.testzip():
                return f"its part {broken} does not match its checksum"
            file.seek(-len(ARCHIVE_END), os.SEEK_END)
            return None if file.read(4) == ARCHIVE_END[:4] else "there are bytes after its end"
    except (FileNotFoundError, PermissionError) as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except OSError as error:
        return str(error.strerror)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError):
        return "it is truncated or not a checkpoint"


def load_checkpoint(path: Path, *, trust: bool = False, needed: Collection[str] | None = None) -> dict[str, Any]:
    """Load a checkpoint to the CPU, after verifying the file. See `unpickle` for what is restored.

    Args:
        path: The file.
        trust: Whether to unpickle objects whoever wrote the file. This may run code that it contains.
        needed: Keys without which the checkpoint is of no use; None for all. Others may be left out if they contain
            objects.

    Raises:
        DamagedCheckpointError: The file is damaged.
        UntrustedCheckpointError: The file contains objects, and is neither this user's nor trusted.
        UserError: It cannot be loaded for another reason.
    """
    if problem := find_corruption(path):
        raise DamagedCheckpointError(f"{path} is damaged: {problem}")
    return unpickle(path, trust=trust, needed=needed)


def _remember(content: memoryview) -> None:
    """Record that this user has written a checkpoint with objects."""
    try:
        known_files.remember(content)
    except (OSError, RuntimeError) as error:
        _warn_not_listed(str(error))


@cache
def _warn_not_listed(why: str) -> None:
    logger.warning("The list of your checkpoints cannot be written (%s): loading those of this run needs --trust", why)


def fetch_checkpoint(run: "StoredRun", name: str = BEST) -> Path:
    """Return a local, verified copy of a run's checkpoint.

    Raises:
        UserError: The run has no such checkpoint, or it is damaged.
    """
    try:
        path = run.file(f"{CHECKPOINT_FOLDER}/{name}")
    except UserError as error:
        raise UserError(f"{error}{_why_discarded(run)}") from error
    if problem := find_corruption(path):
        raise DamagedCheckpointError(f"run {run.run_id}: {path} is damaged: {problem}")
    return path


def _why_discarded(run: "StoredRun") -> str:
    """Return that the user chose not to keep a checkpoint; "" if it is missing for another reason."""
    import yaml

    try:
        keep = yaml.safe_load(run.file("config.yaml").read_text()).get("keep", "all")
    except (UserError, OSError, yaml.YAMLError, AttributeError):
        return ""
    return "" if keep == "all" or run.status != "FINISHED" else f": it was trained with --keep {keep}"


def latest_valid(folder: Path, *, trust: bool = False) -> tuple[ResumePoint | None, list[str]]:
    """Find the newest intact checkpoint, and restore the `best.ckpt` of that time.

    Damaged files are renamed to `NAME.ckpt.damaged`: otherwise the next save would keep them as `previous.ckpt`.

    Returns:
        The checkpoint, or None if none is intact, in which case training restarts; messages for the user.

    Raises:
        UserError: A file is intact, but is not trusted or cannot be loaded. It keeps its name.
    """
    for part in folder.glob(".*.part"):  # of a process that was killed while it wrote
        part.unlink()
    valid, messages = [], []
    own = [path for path in (folder / name for name in (LAST, PREVIOUS, BEST)) if path.is_file()]
    for path in [*own, *_newer_checkpoints(folder, own)]:
        try:
            content = load_checkpoint(path, trust=trust)
            valid.append(ResumePoint.of(path, content))
        except DamagedCheckpointError as error:
            messages.append(f"{error}; moved to {path.name}{QUARANTINE_SUFFIX}")
            _quarantine(path)
        except (KeyError, TypeError):
            messages.append(f"{path} was not saved by litlab, which cannot resume from it")
    for point in sorted(valid, key=lambda point: (point.epoch, point.batches), reverse=True):
        if _restore_best(folder, point, valid):
            return point, messages
        messages.append(
            f"{point.path} is skipped: the checkpoint of its best epoch, {point.state['best_epoch']}, is lost"
        )
    return None, messages


def _restore_best(folder: Path, point: ResumePoint, valid: Sequence[ResumePoint]) -> bool:
    """Make `best.ckpt` the best epoch at the time of a checkpoint; return whether that was possible."""
    best = [other for other in valid if other.is_best_of(point.state)]
    if point.state["best_epoch"] is None or any(other.path == folder / BEST for other in best):
        return True
    if best:
        copy_checkpoint(best[0].path, folder / BEST)
    return bool(best)


def _newer_checkpoints(folder: Path, own: Sequence[Path]) -> list[Path]:
    """Return the checkpoints of the user's callbacks in a run's folder that are newer than litlab's, newest first."""
    newest = max((path.stat().st_mtime for path in own), default=0.0)
    others = [path for path in folder.parent.rglob("*.ckpt") if path.parent != folder]
    others += [path for path in folder.glob("*.ckpt") if path.name not in (LAST, PREVIOUS, BEST)]
    newer = [path for path in others if path.stat().st_mtime > newest]
    return sorted(newer, key=lambda path: path.stat().st_mtime, reverse=True)[:MAX_OTHER_CHECKPOINTS]


def _replace(source: Path, target: Path) -> None:
    source.replace(target)
    _old_digest_path(target).unlink(missing_ok=True)


def _quarantine(path: Path) -> None:
    path.replace(path.with_name(path.name + QUARANTINE_SUFFIX))
    _old_digest_path(path).unlink(missing_ok=True)


def _old_digest_path(path: Path) -> Path:
    return path.with_name(path.name + OLD_DIGEST_SUFFIX)

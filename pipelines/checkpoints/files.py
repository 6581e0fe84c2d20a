"""Checkpoint files: written atomically with a digest, verified before they are loaded.

`NAME.ckpt.sha256` has the format of `sha256sum -c`. While a checkpoint is being replaced it lists two digests, that of
the new file and that of the old one, so that whenever the process is killed the file on disk matches one of them.
Without a digest the checksums inside the file are verified: torch's format is a ZIP archive.
"""

import hashlib
import pickle
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins import CheckpointIO

from pipelines.runtime.errors import UserError
from pipelines.runtime.files import part_of, sync_folder, write_atomically

if TYPE_CHECKING:
    from pipelines.tracking.store import StoredRun

CHECKPOINT_FOLDER = "checkpoints"
BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
STATE_KEY = "litlab"  # key of litlab's own state in a checkpoint
DIGEST_SUFFIX = ".sha256"
QUARANTINE_SUFFIX = ".damaged"


class AtomicCheckpointIO(CheckpointIO):
    """Lightning plugin that saves checkpoints atomically. Saving `last.ckpt` renames the old one to `previous.ckpt`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        content = BytesIO()
        torch.save(checkpoint, content)
        write_checkpoint(content.getbuffer(), Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Load tensors and plain values to the CPU, whatever `map_location` and `weights_only` are."""
        return load_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        remove_checkpoint(Path(path))


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint that training can resume from.

    Attributes:
        path: The checkpoint file.
        epoch: Index of its last complete epoch.
        state: litlab's own state in it.
    """

    path: Path
    epoch: int
    state: dict[str, Any]


def write_checkpoint(content: "bytes | memoryview", path: Path) -> None:
    """Write a checkpoint and its digest atomically: a reader finds the old or the new one, even after a power cut.

    Raises:
        OSError: The file cannot be written; the old one is unchanged.
    """

    def place(part: Path, target: Path) -> None:
        if target.name == LAST and target.is_file():
            _replace(target, target.with_name(PREVIOUS), _digest(target))
        _replace(part, target, hashlib.sha256(content).hexdigest())

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
        _replace(part, target, _digest(source))
    finally:
        part.unlink(missing_ok=True)
    sync_folder(target.parent)


def remove_checkpoint(path: Path) -> None:
    """Delete a checkpoint and its digest, if they exist."""
    for name in (path, _digest_path(path)):
        name.unlink(missing_ok=True)


def find_corruption(path: Path) -> str | None:
    """Return what is wrong with a checkpoint file, or None if it is intact."""
    digests = _read_digests(path)
    try:
        if digests:
            return None if _hash(path) in digests else f"it does not match its digest in {_digest_path(path).name}"
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            return f"its part {broken} does not match its checksum" if broken else None
    except zipfile.BadZipFile:
        return "it is truncated or not a checkpoint"
    except OSError as error:
        return str(error.strerror)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint to the CPU, after verifying the file. Objects are never unpickled.

    Raises:
        UserError: The file is damaged, or contains more than tensors and plain values.
    """
    if problem := find_corruption(path):
        raise UserError(f"{path} is damaged: {problem}")
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} was not loaded: it contains more than tensors and plain values") from error
    except (RuntimeError, EOFError, OSError) as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    return content


def fetch_checkpoint(run: "StoredRun", name: str = BEST) -> Path:
    """Return a local, verified copy of a run's checkpoint, with its digest if it has one.

    Raises:
        UserError: The run has no such checkpoint, or it is damaged.
    """
    path = run.file(f"{CHECKPOINT_FOLDER}/{name}")
    if not _digest_path(path).is_file():  # a server gives one file at a time
        with suppress(UserError):
            _digest_path(path).write_bytes(run.file(f"{CHECKPOINT_FOLDER}/{name}{DIGEST_SUFFIX}").read_bytes())
    if problem := find_corruption(path):
        raise UserError(f"run {run.run_id}: {path} is damaged: {problem}")
    return path


def latest_valid(folder: Path) -> tuple[ResumePoint | None, list[str]]:
    """Find the newest intact checkpoint, and restore the `best.ckpt` of that time.

    Damaged files are renamed to `NAME.ckpt.damaged`: otherwise the next save would keep them as `previous.ckpt`.

    Returns:
        The checkpoint, or None if none is intact, in which case training restarts; messages for the user.
    """
    for part in folder.glob(".*.part"):  # of a process that was killed while it wrote
        part.unlink()
    valid, messages = [], []
    for path in (folder / name for name in (LAST, PREVIOUS, BEST)):
        if not path.is_file():
            continue
        try:
            content = load_checkpoint(path)
            valid.append(ResumePoint(path, int(content["epoch"]), content[STATE_KEY]))
        except UserError as error:
            messages.append(f"{error}; moved to {path.name}{QUARANTINE_SUFFIX}")
            _quarantine(path)
        except KeyError:
            messages.append(f"{path} was not saved by litlab, which cannot resume from it")
    for point in sorted(valid, key=lambda point: point.epoch, reverse=True):
        if _restore_best(folder, point, valid):
            return point, messages
        messages.append(
            f"{point.path} is skipped: the checkpoint of its best epoch, {point.state['best_epoch']}, is lost"
        )
    return None, messages


def _restore_best(folder: Path, point: ResumePoint, valid: Sequence[ResumePoint]) -> bool:
    """Make `best.ckpt` the best epoch at the time of a checkpoint; return whether that was possible."""
    best_epoch = point.state["best_epoch"]
    same_epoch = [other for other in valid if other.epoch == best_epoch]
    if best_epoch is None or any(other.path.name == BEST for other in same_epoch):
        return True
    if same_epoch:
        copy_checkpoint(same_epoch[0].path, folder / BEST)
    return bool(same_epoch)


def _replace(source: Path, target: Path, digest: str) -> None:
    """Rename a file with a known digest. At every moment the digest file covers the content of `target`."""
    old = [_digest(target)] if target.is_file() else []
    _write_digests(target, [digest, *old])
    source.replace(target)
    if old:
        _write_digests(target, [digest])


def _write_digests(path: Path, digests: Sequence[str]) -> None:
    """Write the digest file of a checkpoint. Not synced: a power cut may leave it empty, which counts as none."""
    part = part_of(_digest_path(path))
    part.write_text("".join(f"{digest}  {path.name}\n" for digest in digests))
    part.replace(_digest_path(path))


def _read_digests(path: Path) -> list[str]:
    """Return the digests in the digest file of a checkpoint, newest first; empty without a valid one."""
    try:
        lines = _digest_path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [line.split()[0] for line in lines if len(line.split()) == 2 and len(line.split()[0]) == 64]


def _digest(path: Path) -> str:
    digests = _read_digests(path)
    return digests[0] if len(digests) == 1 else _hash(path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _quarantine(path: Path) -> None:
    path.replace(path.with_name(path.name + QUARANTINE_SUFFIX))
    _digest_path(path).unlink(missing_ok=True)


def _digest_path(path: Path) -> Path:
    return path.with_name(path.name + DIGEST_SUFFIX)

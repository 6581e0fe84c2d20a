"""Checkpoints on disk: written aside, synced and renamed, with a digest beside them; a damaged one is never loaded.

`NAME.ckpt.sha256` is what `sha256sum -c` reads. While a file is being replaced it names two digests, the new one and
that of the file that is still there: whenever the process is killed, the file that is found has one of them. Where
there is no digest, the checksums inside the file must do: torch's format is a ZIP archive.
"""

import hashlib
import os
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

if TYPE_CHECKING:
    from pipelines.tracking.store import StoredRun

CHECKPOINT_FOLDER = "checkpoints"
BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
STATE_KEY = "litlab"  # the part of a checkpoint that is not Lightning's
DIGEST_SUFFIX = ".sha256"
QUARANTINE_SUFFIX = ".damaged"


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's way to the disk. A new `last.ckpt` leaves the one before as `previous.ckpt`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        content = BytesIO()
        torch.save(checkpoint, content)
        write_checkpoint(content.getbuffer(), Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Load to the CPU, whatever is asked for: tensors and plain values only."""
        return load_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        remove_checkpoint(Path(path))


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint to go on from.

    Attributes:
        epoch: The last epoch that it has seen.
        state: What litlab keeps in it.
    """

    path: Path
    epoch: int
    state: dict[str, Any]


def write_checkpoint(content: "bytes | memoryview", path: Path) -> None:
    """Put a file in its place, at once and for good: a reader finds the old or the new one, even after a power cut.

    Raises:
        OSError: It cannot be written; what was there is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.name == LAST and path.is_file():
            _place(path, path.with_name(PREVIOUS), _digest(path))
        _place(part, path, hashlib.sha256(content).hexdigest())
    finally:
        part.unlink(missing_ok=True)
    _sync(path.parent)


def copy_checkpoint(source: Path, target: Path) -> None:
    """The same checkpoint under a second name; where the file system can, without a second file."""
    part = _part(target)
    part.unlink(missing_ok=True)
    try:
        part.hardlink_to(source)
    except OSError:  # a file system without links
        write_checkpoint(source.read_bytes(), target)
        return
    try:
        _place(part, target, _digest(source))
    finally:
        part.unlink(missing_ok=True)
    _sync(target.parent)


def remove_checkpoint(path: Path) -> None:
    """Delete a checkpoint and its digest, if they are there."""
    for name in (path, _beside(path)):
        name.unlink(missing_ok=True)


def find_corruption(path: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None if nothing is."""
    digests = _noted(path)
    try:
        if digests:
            return None if _hash(path) in digests else f"it does not match its digest in {_beside(path).name}"
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            return f"its part {broken} does not match its checksum" if broken else None
    except zipfile.BadZipFile:
        return "it is truncated, or no checkpoint"
    except OSError as error:
        return str(error.strerror)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU; never unpickles objects.

    Raises:
        UserError: The file is damaged, or holds more than tensors and plain values.
    """
    if said := find_corruption(path):
        raise UserError(f"{path} is damaged: {said}")
    try:
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} holds more than tensors and plain values, and is not loaded") from error
    except (RuntimeError, EOFError, OSError) as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    return content


def fetch_checkpoint(run: "StoredRun", name: str = BEST) -> Path:
    """A local copy of a run's checkpoint, with its digest if it has one.

    Raises:
        UserError: The run has no such checkpoint, or it is damaged.
    """
    path = run.file(f"{CHECKPOINT_FOLDER}/{name}")
    if not _beside(path).is_file():  # a server gives one file at a time
        with suppress(UserError):
            _beside(path).write_bytes(run.file(f"{CHECKPOINT_FOLDER}/{name}{DIGEST_SUFFIX}").read_bytes())
    if said := find_corruption(path):
        raise UserError(f"run {run.run_id}: {path} is damaged: {said}")
    return path


def latest_valid(folder: Path) -> tuple[ResumePoint | None, list[str]]:
    """The newest checkpoint that is whole, with `best.ckpt` as it was then, and what a person should be told.

    Damaged files are put aside: they would be taken for the one before when the next is written. Without any that is
    whole there is no point to go on from: the training begins anew, and comes to the same.
    """
    for part in folder.glob(".*.part"):  # of a process that was killed while it wrote
        part.unlink()
    good, said = [], []
    for path in (folder / name for name in (LAST, PREVIOUS, BEST)):
        if not path.is_file():
            continue
        try:
            content = load_checkpoint(path)
            good.append(ResumePoint(path, int(content["epoch"]), content[STATE_KEY]))
        except UserError as error:
            said.append(f"{error}; it is kept as {path.name}{QUARANTINE_SUFFIX}")
            _put_aside(path)
        except KeyError:
            said.append(f"{path} is not one that litlab can go on from")
    for point in sorted(good, key=lambda point: point.epoch, reverse=True):
        if _restore_best(folder, point, good):
            return point, said
        said.append(f"{point.path} is passed over: the best epoch until then, {point.state['best_epoch']}, is gone")
    return None, said


def _restore_best(folder: Path, point: ResumePoint, good: Sequence[ResumePoint]) -> bool:
    """See that `best.ckpt` is the epoch that a checkpoint takes for the best; whether it is."""
    wanted = point.state["best_epoch"]
    same = [other for other in good if other.epoch == wanted]
    if wanted is None or any(other.path.name == BEST for other in same):
        return True
    if same:
        copy_checkpoint(same[0].path, folder / BEST)
    return bool(same)


def _place(source: Path, target: Path, digest: str) -> None:
    """Rename a file whose digest is known; whenever it ends, the digest of what is at `target` is beside it."""
    old = [_digest(target)] if target.is_file() else []
    _note(target, [digest, *old])
    source.replace(target)
    if old:
        _note(target, [digest])


def _note(path: Path, digests: Sequence[str]) -> None:
    """Write digests beside a checkpoint. A power cut may leave an empty file, which counts as none."""
    part = _part(_beside(path))
    part.write_text("".join(f"{digest}  {path.name}\n" for digest in digests))
    part.replace(_beside(path))


def _noted(path: Path) -> list[str]:
    """The digests beside a checkpoint, the newest first; none if there is no such file, or no digest in it."""
    try:
        lines = _beside(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [line.split()[0] for line in lines if len(line.split()) == 2 and len(line.split()[0]) == 64]


def _digest(path: Path) -> str:
    noted = _noted(path)
    return noted[0] if len(noted) == 1 else _hash(path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put_aside(path: Path) -> None:
    path.replace(path.with_name(path.name + QUARANTINE_SUFFIX))
    _beside(path).unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + DIGEST_SUFFIX)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _sync(folder: Path) -> None:
    with suppress(OSError):  # a file system that cannot
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)

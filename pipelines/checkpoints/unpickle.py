"""Load a checkpoint without running code from it; in full only if this user wrote it, or trusts it."""

import io
import pickletools
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from pipelines.checkpoints.harmless_types import HARMLESS, opaque, opaque_names, resolve
from pipelines.checkpoints.known_files import is_known
from pipelines.checkpoints.serialize import HYPERPARAMETERS, HYPERPARAMETERS_TYPE
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import first_line

NEVER_READ = (*HYPERPARAMETERS, HYPERPARAMETERS_TYPE)  # modules are built from config.yaml
MAX_NAMED = 4  # objects that an error message names


class DamagedCheckpointError(UserError):
    """The file is not as it was written."""


class UntrustedCheckpointError(UserError):
    """The file is sound, but may run code when its objects are restored."""


def unpickle(path: Path, *, trust: bool = False, needed: Collection[str] | None = None) -> dict[str, Any]:
    """Load a checkpoint to the CPU, in the first of these ways that restores what is needed.

    1. As tensors and plain values, with the types of `harmless_types`.
    2. In the same way, without what is never read: hyperparameters.
    3. In full, if this user wrote the file on this machine, or trusts it.
    4. As the first, without the keys that are not needed.

    Args:
        path: A file whose checksums are right.
        trust: Whether to load it in full if necessary, whoever wrote it. This may run code that the file contains.
        needed: Keys without which the checkpoint is of no use; None for all but those that are never read.

    Raises:
        DamagedCheckpointError: The file contains nothing that torch has saved.
        UntrustedCheckpointError: The file contains objects, and is neither this user's nor trusted.
        UserError: A class that it names cannot be imported, or refuses what it is given.
    """
    content: dict[str, Any] | None
    try:
        content = _load_restricted(path, ())
        return content
    except Exception as error:  # of any kind: the file decides which function fails
        failure: Exception = error
    _check_pickle(path)
    partial, objects = _load_inert(path)
    if (content := _without_objects(partial, set(partial) - set(NEVER_READ))) is not None:
        return content
    whole = path.read_bytes()  # read once: another process may replace the file between the check and the loading
    allowed = trust or is_known(whole)
    if allowed:
        try:
            content = _load_in_full(whole)
            return content
        except Exception as error:
            failure = error
    if needed is not None and (content := _without_objects(partial, needed)) is not None:
        return content
    if allowed:
        raise UserError(f"{path} cannot be loaded: {first_line(failure)}") from failure
    names = ", ".join(objects[:MAX_NAMED] or [first_line(failure)]) + (", ..." if len(objects) > MAX_NAMED else "")
    raise UntrustedCheckpointError(
        f"{path} was not loaded: it contains more than tensors and plain values ({names}), and is not a file that you "
        "wrote on this machine. To load it in full, if you trust whoever wrote it: --trust (it may run code that the "
        "file contains)"
    ) from failure


def _load_restricted(path: Path, placeholders: Collection[tuple[Any, str]]) -> Any:
    with safe_globals([*HARMLESS, *placeholders]):
        return resolve(torch.load(path, weights_only=True, map_location="cpu"))


def _load_inert(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Load a checkpoint with inert objects in place of those that it names, if possible; return their names too."""
    objects: list[str] = []
    try:
        with safe_globals([*HARMLESS]):
            objects = sorted(get_unsafe_globals_in_checkpoint(path))
        content = _load_restricted(path, [opaque(name) for name in objects])
    except Exception:
        return {}, objects
    return content if isinstance(content, dict) else {}, objects


def _without_objects(content: dict[str, Any], needed: Collection[str]) -> dict[str, Any] | None:
    """Leave out the keys that contain objects; None if one of them is needed, or there are no others."""
    kept = {key: value for key, value in content.items() if not opaque_names([key, value])}
    return kept if kept and set(needed) & set(content) <= set(kept) else None


def _load_in_full(content: bytes) -> Any:
    """Unpickle objects. The only place that does: the caller has checked whose file it is."""
    return torch.load(io.BytesIO(content), weights_only=False, map_location="cpu")


def _check_pickle(path: Path) -> None:
    """Check that a file has what torch writes, without executing it.

    Raises:
        DamagedCheckpointError: It has not.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            for _ in pickletools.genops(archive.read(name)):
                pass
    except StopIteration:
        raise DamagedCheckpointError(f"{path} is damaged: it is not a file of torch") from None
    except ValueError as error:
        raise DamagedCheckpointError(f"{path} is damaged: its contents are not readable ({error})") from error

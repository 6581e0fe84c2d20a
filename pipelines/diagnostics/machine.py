"""Whether this machine has room, and lets us write."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pipelines.diagnostics.finding import Finding, Place, todo
from pipelines.runtime.environment import cpu_count
from pipelines.runtime.errors import UserError
from pipelines.tracking import ui

LEAST_GB = 2.0  # of disk or memory, under which a training may end in its middle
OLD_S = 3600.0  # a file that is being written is younger


def space(place: Place) -> Iterator[Finding]:
    """Free space where databases, artifacts and temporary files are, each file system once."""
    seen: dict[int, list[str]] = {}
    for folder in _written(place):
        seen.setdefault(folder.stat().st_dev, []).append(str(folder))
    for folders in seen.values():
        gb = shutil.disk_usage(folders[0]).free / 1e9
        said = f"{gb:.1f} GB free for {', '.join(dict.fromkeys(folders))}"
        yield Finding("disk", said) if gb >= LEAST_GB else todo("disk", f"{said}: make room, {LEAST_GB:g} GB at least")


def writing(place: Place) -> Iterator[Finding]:
    """Whether files can be made where runs and temporary files go."""
    folders = list(dict.fromkeys(_written(place)))
    refused = []
    for folder in folders:
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"litlab")
        except OSError as error:
            refused.append(f"{folder}: {error.strerror}")
    for said in refused:
        yield todo("writing", f"{said}; give yourself the right to write there, or name another --tracking_uri")
    if not refused:
        yield Finding("writing", f"works in {', '.join(map(str, folders))}")


def memory(place: Place) -> Iterator[Finding]:
    """Memory that is free for a training, and processors."""
    cores = cpu_count()
    gb = _free_memory() / 1e9
    said = f"{gb:.1f} GB free, {cores} processor{'' if cores == 1 else 's'}"
    yield Finding("memory", said) if gb >= LEAST_GB else todo("memory", f"{said}: end other programs before a training")


def ports(place: Place) -> Iterator[Finding]:
    """Which port `litlab ui` would take."""
    try:
        yield Finding("ports", f"{ui.free_port(None)} is free for litlab ui")
    except UserError as error:
        yield todo("ports", str(error))


def leftovers(place: Place) -> Iterator[Finding]:
    """Halves of files that a process was writing when it was killed; lock files without a holder do no harm."""
    artifacts = place.folder / "mlartifacts"
    halves = [*artifacts.glob("*/*/artifacts/checkpoints/.*.part"), *artifacts.glob("*/*/artifacts/.*.part")]
    old = [path for path in halves if time.time() - path.stat().st_mtime > OLD_S]
    aside = list(artifacts.glob("*/*/artifacts/checkpoints/*.damaged"))
    for path in old:
        if place.fix:
            path.unlink(missing_ok=True)
            yield Finding(
                "leftovers",
                f"{path} is deleted: half of a file, of which the whole or its forerunner is there",
                "fixed",
            )
        else:
            yield todo("leftovers", f"{path} is half of a file that was never finished: litlab doctor --fix deletes it")
    kept = f"; {len(aside)} damaged checkpoints that were put aside ({aside[0]}) are yours to delete" if aside else ""
    if not old:
        yield Finding("leftovers", f"no halves of files under {artifacts}{kept}")


def _written(place: Place) -> Iterator[Path]:
    """The folders that a training writes to; of one that is not there yet, the one that it will be made in."""
    for folder in (place.folder, place.folder / "mlartifacts", Path(tempfile.gettempdir())):
        while not folder.exists():
            folder = folder.parent
        yield folder


def _free_memory() -> int:
    """In bytes: what the machine has free, or what the control group of this process may still take."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return min(free, int(limit) - int(used)) if limit.isdigit() else free
    except OSError:
        return free

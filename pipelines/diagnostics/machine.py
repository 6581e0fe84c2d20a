"""Check that this machine has disk space, memory and a free port, and that files can be written."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pipelines.diagnostics.check import CheckResult, Context, failed
from pipelines.runtime.environment import cpu_count
from pipelines.runtime.errors import UserError
from pipelines.tracking import ui

MINIMUM_GB = 2.0  # of disk or memory; with less, a training may fail half-way
STALE_S = 3600.0  # a file that is being written is younger


def check_disk(context: Context) -> Iterator[CheckResult]:
    """Check the free space for databases, artifacts and temporary files, once for each file system."""
    by_device: dict[int, list[str]] = {}
    for folder in _written(context):
        by_device.setdefault(folder.stat().st_dev, []).append(str(folder))
    for folders in by_device.values():
        gb = shutil.disk_usage(folders[0]).free / 1e9
        message = f"{gb:.1f} GB free for {', '.join(dict.fromkeys(folders))}"
        yield _check_size("disk", gb, message, f"free at least {MINIMUM_GB:g} GB")


def check_writing(context: Context) -> Iterator[CheckResult]:
    """Check that files can be created in the folders of runs and temporary files."""
    folders = list(dict.fromkeys(_written(context)))
    refused = []
    for folder in folders:
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"litlab")
        except OSError as error:
            refused.append(f"{folder}: {error.strerror}")
    for message in refused:
        yield failed("writing", f"{message}; get write permission there, or give another --tracking_uri")
    if not refused:
        yield CheckResult("writing", f"works in {', '.join(map(str, folders))}")


def check_memory(context: Context) -> Iterator[CheckResult]:
    """Check the free memory; name the number of processors too."""
    cores = cpu_count()
    gb = _free_memory() / 1e9
    message = f"{gb:.1f} GB free, {cores} processor{'' if cores == 1 else 's'}"
    yield _check_size("memory", gb, message, "close other programs before a training")


def _check_size(name: str, gb: float, message: str, advice: str) -> CheckResult:
    return CheckResult(name, message) if gb >= MINIMUM_GB else failed(name, f"{message}: {advice}")


def check_ports(context: Context) -> Iterator[CheckResult]:
    """Check that `litlab ui` finds a port."""
    try:
        yield CheckResult("ports", f"{ui.free_port(None)} is free for litlab ui")
    except UserError as error:
        yield failed("ports", str(error))


def check_leftovers(context: Context) -> Iterator[CheckResult]:
    """Check for unfinished files of processes that were killed. Lock files without a holder do no harm."""
    artifacts = context.folder / "mlartifacts"
    parts = [*artifacts.glob("*/*/artifacts/checkpoints/.*.part"), *artifacts.glob("*/*/artifacts/.*.part")]
    stale = [path for path in parts if time.time() - path.stat().st_mtime > STALE_S]
    quarantined = list(artifacts.glob("*/*/artifacts/checkpoints/*.damaged"))
    for path in stale:
        if context.fix:
            path.unlink(missing_ok=True)
            message = f"{path} is deleted: an unfinished file, of which the complete or the previous version exists"
            yield CheckResult("leftovers", message, "fixed")
        else:
            yield failed("leftovers", f"{path} is a file that was never finished: litlab doctor --fix deletes it")
    if not stale:
        message = f"no unfinished files under {artifacts}"
        if quarantined:
            message += f"; {len(quarantined)} damaged checkpoints ({quarantined[0]}) can be deleted if not needed"
        yield CheckResult("leftovers", message)


def _written(context: Context) -> Iterator[Path]:
    """Yield the folders that a training writes to; for one that does not exist yet, its nearest parent."""
    for folder in (context.folder, context.folder / "mlartifacts", Path(tempfile.gettempdir())):
        while not folder.exists():
            folder = folder.parent
        yield folder


def _free_memory() -> int:
    """Return the bytes that the machine has free, or that the control group of this process may still use."""
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

"""Identify processes: their start time, their pid namespace, and whether they are alive."""

import os
import threading
import time
from pathlib import Path

RANK_ZERO_PID = "LITLAB_FIRST"  # environment variable: id of the process that starts the other ranks


def pid_namespace() -> str:
    """Return an id of the pid namespace: process ids are comparable only between processes with the same one.

    It combines the kernel's boot id and the namespace, such as a container's. Empty on systems without /proc, where
    process ids of other machines with the same host name cannot be told apart.
    """
    try:
        return f"{_boot_id()}.{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def is_process_alive(pid: int, start: str) -> bool:
    """Return whether a process of this machine is alive and has this start time, see `process_start`."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return process_start(pid) == start


def exit_with_rank_zero() -> None:
    """Exit as soon as rank zero has died, in a process that Lightning started for another device; else do nothing.

    Otherwise the process would wait half an hour for rank zero if that was killed before all ranks had joined.
    """
    started = "LOCAL_RANK" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ  # torchrun ends its own processes
    if not started or RANK_ZERO_PID not in os.environ:
        os.environ[RANK_ZERO_PID] = str(os.getpid())
        return
    exit_with_parent(int(os.environ[RANK_ZERO_PID]))


def exit_with_parent(parent: int) -> None:
    """Exit as soon as the parent process, whose id is given, has died."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def process_start(pid: int) -> str:
    """Return boot id and start time (clock ticks since boot) of a process; "" if it is dead or there is no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = _boot_id()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()  # the process name before it may contain blanks
    return "" if fields[0] == "Z" else f"{boot}-{fields[19]}"


def _boot_id() -> str:
    """Return the first 8 characters of the kernel's boot id.

    Raises:
        OSError: The system has none; only Linux has.
    """
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]

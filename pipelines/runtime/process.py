"""Processes: their start time, their pid namespace, whether they are alive, and groups of them.

Works without /proc (macOS, Windows), process groups and SIGKILL (Windows).
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

FORK_IS_SAFE = sys.platform == "linux"  # Windows has no fork; on macOS, it may crash once libraries are loaded
SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows, SIGTERM ends a process at once
GC_THRESHOLDS = (100_000, 20, 100)  # the default, 700 new objects, takes a fifth of the time to import torch or MLflow
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
    return process_exists(pid) and process_start(pid) == start


def process_exists(pid: int) -> bool:
    """Return whether a process of this machine exists."""
    if sys.platform == "win32":  # os.kill(pid, 0) would send Ctrl-C there
        command = ["tasklist", "/NH", "/FI", f"PID eq {pid}"]
        tasks = subprocess.run(command, capture_output=True, text=True, check=False)
        return str(pid) in tasks.stdout.split()
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def start_process_group() -> None:
    """Make this process the first of a new group, which Ctrl-C on the terminal does not reach."""
    if hasattr(os, "setsid"):
        os.setsid()
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def signal_process_group(pid: int, number: int) -> None:
    """Send a signal to the group of a process, if there still is one; on Windows, end it and its child processes."""
    with contextlib.suppress(OSError):  # it is gone
        if hasattr(os, "killpg"):
            os.killpg(pid, number)
        else:
            command = ["taskkill", "/F", "/T", "/PID", str(pid)]
            subprocess.run(command, capture_output=True, check=False)


def exit_with_rank_zero() -> None:
    """Exit as soon as rank zero has died, in a process that Lightning started for another device; else do nothing.

    Otherwise the process would wait half an hour for rank zero if that was killed before all ranks had joined.
    """
    if not started_by_rank_zero() or RANK_ZERO_PID not in os.environ:
        os.environ[RANK_ZERO_PID] = str(os.getpid())
        return
    exit_with_parent(int(os.environ[RANK_ZERO_PID]))


def started_by_rank_zero() -> bool:
    """Return whether Lightning may have started this process for another device; torchrun ends its own processes."""
    return "LOCAL_RANK" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ


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

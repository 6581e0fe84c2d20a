"""Whether the process that a run belongs to is still alive."""

import os
import threading
import time
from pathlib import Path

RANK_ZERO_PID = "LITLAB_FIRST"  # the number of the process that starts those of further devices


def pid_namespace() -> str:
    """What process numbers count in: a start of a kernel and one of its namespaces, such as a container's own.

    Empty where the system does not say: then numbers of a machine of the same name say nothing.
    """
    try:
        return f"{_boot()}.{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def is_process_alive(pid: int, start: str) -> bool:
    """Return whether a process of this machine is alive and started then, see `process_start`."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return process_start(pid) == start


def exit_with_rank_zero() -> None:
    """In a process that Lightning started for a further device: end as soon as the first one has gone.

    It would wait for it for half an hour, if it was killed before all were there. Elsewhere nothing happens.
    """
    started = "LOCAL_RANK" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ  # torchrun ends its own
    if not started or RANK_ZERO_PID not in os.environ:
        os.environ[RANK_ZERO_PID] = str(os.getpid())
        return
    first = int(os.environ[RANK_ZERO_PID])

    def watch() -> None:
        while os.getppid() == first:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def process_start(number: int) -> str:
    """When a process began, as Linux has it: clock ticks since the start of this boot; empty on other systems."""
    try:
        stat = Path(f"/proc/{number}/stat").read_text()
        boot = _boot()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()  # the name before it may have blanks
    return "" if fields[0] == "Z" else f"{boot}-{fields[19]}"


def _boot() -> str:
    """Which start of the kernel this is.

    Raises:
        OSError: The system does not say, as those other than Linux.
    """
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]

"""Run a `litlab` command in a separate, preloaded process, and read information about processes from /proc."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMEOUT_S = 400.0  # for a command that is not killed


class Command:
    """A running `litlab` command, in a separate process and session.

    Args:
        process: The process, which is started here.
        log: The file that its output is appended to.
    """

    def __init__(self, process: Any, log: Path) -> None:
        self.process, self._log, self.started = process, log, time.monotonic()
        self._offset = log.stat().st_size
        process.start()

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self.started

    @property
    def output(self) -> str:
        """The output so far."""
        return self._log.read_bytes()[self._offset :].decode(errors="replace")

    @property
    def last_line(self) -> str:
        """The last line of the output so far."""
        return (self.output.strip().splitlines() or [""])[-1]

    def wait(self, seconds: float = TIMEOUT_S) -> int | None:
        """Wait for the end; return the exit code, or None if the command still runs after this time."""
        self.process.join(max(0.0, seconds))
        code: int | None = self.process.exitcode
        return code

    def exit_code(self) -> int:
        """Wait for the end, and return the exit code; -9 if the command had to be killed after TIMEOUT_S."""
        if self.wait() is None:
            self.kill()
        return int(self.process.exitcode)

    def kill(self) -> bool:
        """Send SIGKILL and wait for the end; return whether the command was still running."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.process.join()
        return bool(self.process.exitcode == -signal.SIGKILL)


def run_command(argv: list[str], log: str, environment: dict[str, str], folder: str) -> None:
    """Run a command in this process, which was forked for it."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    number = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(number, stream)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = argv
    sys.modules["__main__"].__spec__ = None  # Lightning reads it to start the processes of further devices
    if "RANK" in environment:  # Lightning does this when it is imported, which has already happened
        from lightning.pytorch.utilities import rank_zero_only

        rank_zero_only.rank = int(environment["RANK"])  # type: ignore[attr-defined]
    from pipelines.cli import main

    sys.exit(main(argv[1:]))


def process_tree(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
    tree = [pid]
    for member in tree:  # grows while it is read
        tree += [child for child, parent in parents.items() if parent == member]
    return tree


def is_alive(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    return False


def until(condition: Callable[[], object], seconds: float = 120.0) -> bool:
    """Wait until a condition is true; return False if it does not become true within this time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True

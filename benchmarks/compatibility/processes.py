"""Run commands with a time limit, each in a new process and session, forked from a process that has the imports."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cases import STRANGERS

from tests.warm import WarmProcess, WarmServer

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PATH = [str(STRANGERS), str(HERE), str(ROOT)]


@dataclass(frozen=True)
class Program:
    """A program, as arguments of a new process and as a text for a forked one."""

    fresh: tuple[str, ...]
    text: str


LITLAB = Program((str(Path(sys.executable).with_name("litlab")),), "from pipelines.cli import main; sys.exit(main())")
PLAIN = Program((sys.executable, str(HERE / "plain.py")), "from plain import main; main()")


class CommandError(Exception):
    """A command failed or exceeded its time limit; the message is the last line of its output."""


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a command."""

    code: int
    output: str

    def check(self) -> "Outcome":
        """Raise CommandError if the command failed."""
        if self.code:
            raise CommandError(_error_line(self.output) or f"exit code {self.code}")
        return self


@dataclass
class Commands:
    """Starts commands.

    Attributes:
        limit: Time limit of each command in seconds.
    """

    limit: float
    _server: WarmServer = field(default_factory=WarmServer)
    closed: bool = False
    _running: set[subprocess.Popen[str]] = field(default_factory=set)

    def run(
        self,
        program: Program,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        *,
        fresh: bool = False,
    ) -> Outcome:
        """Run a command in a folder.

        Args:
            program: LITLAB or PLAIN.
            arguments: Its arguments.
            folder: Its working directory.
            environment: Environment variables to set.
            fresh: Whether to start Python anew, which trainings in several processes need.
        """
        if self.closed:
            raise KeyboardInterrupt  # ends the thread of a module
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(PATH), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
        options = {
            "cwd": folder,
            "env": {**variables, **(environment or {})},
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
            "errors": "replace",
            "start_new_session": True,
        }
        if fresh:
            process = subprocess.Popen([*program.fresh, *arguments], **options)
        else:
            text = f"import sys; sys.path[:0] = {PATH!r}; {program.text}"
            process = WarmProcess(self._server, text, *arguments, **options)
        self._running.add(process)
        try:
            output, _ = process.communicate(timeout=self.limit)
        except subprocess.TimeoutExpired as error:
            _kill(process)
            raise CommandError(f"not finished after {self.limit:.0f} s") from error
        finally:
            self._running.discard(process)
        if self.closed:  # killed by `close`: no result
            raise KeyboardInterrupt
        name = "litlab" if program is LITLAB else "plain.py"
        with (folder / "output.txt").open("a") as log:
            log.write(f"$ {name} {' '.join(arguments)}\n{output}\nexit code {process.returncode}\n\n")
        return Outcome(process.returncode, output)

    def close(self) -> None:
        """Kill all running commands. No other command can be started."""
        self.closed = True
        for process in list(self._running):
            _kill(process)
        self._server.close()


def _kill(process: "subprocess.Popen[str]") -> None:
    """Kill a process and those that it has started and left behind."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _error_line(output: str) -> str:
    """Return the line of an output that names the error."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    named = [line for line in lines if "Error: " in line or "Exception: " in line or "error: " in line]
    return (named or lines or [""])[-1]

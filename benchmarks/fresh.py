"""Run Python in a new process and an empty folder, and time it; shared by the benchmarks."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

LITLAB = ("-c", "from pipelines.cli import console; console()")


class Result(NamedTuple):
    """Output of a process, and its wall time in seconds."""

    out: str
    seconds: float


def python(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Result:
    """Run Python and wait until it ends. If it fails, this process exits with its output.

    Args:
        arguments: Arguments of the interpreter. The current folder is temporary, since Lightning writes files to it.
        environment: Changes of the environment.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = {**os.environ, **(environment or {})}
        start = time.perf_counter()
        process = subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=settings, capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"{' '.join(arguments)[:200]} failed:\n{process.stdout[-2000:]}\n{process.stderr[-4000:]}")
    return Result(process.stdout, seconds)

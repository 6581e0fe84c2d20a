"""What Python does in a process and an empty folder of its own, and how long it takes; shared by the benchmarks."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

LITLAB = ("-c", "import sys; from pipelines.cli import main; sys.exit(main())")


class Done(NamedTuple):
    """What a process printed, and its wall time."""

    out: str
    seconds: float


def python(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Done:
    """Run it to its end; ends this process if it fails.

    Args:
        arguments: Of the interpreter; Lightning leaves files in the current folder, which is new and goes at the end.
        environment: Changes.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = {**os.environ, **(environment or {})}
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=settings, capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{' '.join(arguments)[:200]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return Done(done.stdout, seconds)

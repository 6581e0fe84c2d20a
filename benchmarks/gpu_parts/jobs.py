"""The jobs of each part, and how they run: in processes of their own, with a time limit for each part."""

import importlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpu_parts.place import Place

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"


@dataclass(frozen=True)
class Job:
    """Work of one process: a function of a module of this package, and its further arguments."""

    module: str
    function: str
    arguments: tuple[str, ...] = ()

    def run(self, place: Place, name: str) -> None:
        function = getattr(importlib.import_module(f"gpu_parts.{self.module}"), self.function)
        sys.stdin.readline()  # its turn
        function(place, name, *self.arguments)


@dataclass(frozen=True)
class Part:
    """Jobs of one purpose.

    Attributes:
        title: What the part answers.
        together: Whether the jobs run at the same time; if not, nothing else runs while they measure times.
        limits_s: Names of `JOBS`, and the seconds of each.
    """

    title: str
    together: bool
    limits_s: dict[str, float]

    @property
    def limit_s(self) -> float:
        """Seconds of all jobs."""
        return max(self.limits_s.values()) if self.together else sum(self.limits_s.values())


JOBS = {
    "experiments fp32": Job("runs", "experiments", ("32-true",)),
    "experiments bf16": Job("runs", "experiments", ("bf16-mixed",)),
    "compiled": Job("runs", "compiled"),
    "one run": Job("runs", "one_run"),
    "resumed": Job("processes", "resumed"),
    "resumed, deterministic": Job("processes", "resumed_deterministically"),
    "sweep": Job("processes", "sweep"),
    "two processes": Job("processes", "two_processes"),
    "raw": Job("timing", "raw"),
    "litlab": Job("timing", "litlab"),
    "workers": Job("timing", "with_workers"),
    "usage": Job("usage", "usage"),
    "stacked floors": Job("stacks", "floors"),
    "stacks": Job("stacks", "stacks"),
    "stacked search": Job("stacks", "search"),
    "airbench": Job("airbench", "litlab"),
    "airbench script": Job("airbench", "script"),
}
PARTS = {
    "a": Part("does everything run", True, dict.fromkeys([*JOBS][:8], 140)),
    "e": Part("memory and utilisation", False, {"usage": 55}),
    "b": Part("seconds per epoch", False, {"raw": 60, "litlab": 150, "workers": 60}),
    "d": Part("models that train as one", False, {"stacked floors": 30, "stacks": 60, "stacked search": 60}),
    "c": Part("cifar-airbench, beside airbench's own script", False, {"airbench": 180, "airbench script": 120}),
}
DEFAULT_PARTS = ("a", "e", "b")  # all five take longer than eight minutes, and c needs the images of CIFAR-10


def run_part(part: Part, place: Place, end: float) -> None:
    """Run the jobs of a part in processes of their own; those that are not done in time are killed.

    All processes start at once, and wait for their turn when they have imported what they need.

    Args:
        part: The part.
        place: Where it runs; jobs of a dry run have no time limits of their own.
        end: When all must have ended, as `time.monotonic` counts.
    """
    threads = {"OMP_NUM_THREADS": "2"} if part.together else {}
    started = {name: _start_job(name, place, threads) for name in part.limits_s}

    def run(name: str) -> None:
        left = end - time.monotonic()
        limit_s = left if place.dry else min(part.limits_s[name], left)
        start = time.monotonic()
        error = _finish_job(started[name], limit_s)
        seconds = round(time.monotonic() - start, 1)
        place.save(name, "process", ok=not error, error=error, seconds=seconds)
        print(f"{name:<24}{seconds:6.1f} s  {error or 'done'}", flush=True)

    with ThreadPoolExecutor(len(started) if part.together and place.device == "cuda" else 1) as pool:
        list(pool.map(run, started))


def _start_job(name: str, place: Place, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start the process of a job, which waits for a line."""
    folder = place.folder / name.replace(" ", "-").replace(",", "")
    folder.mkdir(parents=True, exist_ok=True)
    with (place.results.with_name("log.txt")).open("a") as log:
        return subprocess.Popen(
            _command(name, place, folder),
            cwd=folder,
            env={**_environment(folder), **environment},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            bufsize=0,
        )


def _finish_job(process: "subprocess.Popen[bytes]", limit_s: float) -> str:
    """Let a job run; return why it did not succeed, or ""."""
    assert process.stdin is not None
    if limit_s <= 0:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return "no time was left"
    with suppress(BrokenPipeError), process.stdin as turn:  # it may have failed already
        turn.write(b"your turn\n")
    return _wait(process, limit_s)


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> str:
    """Return why the process did not succeed, or ""."""
    try:
        code = process.wait(None if seconds == math.inf else seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"stopped after {seconds:.0f} s"
    return f"exit code {code}" if code else ""


def _command(name: str, place: Place, folder: Path) -> Sequence[str]:
    options = ["--device", place.device, "--data-dir", str(place.data_dir), "--results", str(place.results)]
    options += ["--dry"] if place.dry else []
    return [sys.executable, str(SCRIPT), "--job", name, "--folder", str(folder), *options]


def _environment(folder: Path) -> dict[str, str]:
    paths = [str(ROOT), str(SCRIPT.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(paths), "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    own |= {"LITLAB_UNSENT": str(folder / "unsent"), "LITLAB_STATE": str(folder / "state")}
    return {**os.environ, **own, "XDG_CACHE_HOME": str(folder / "cache"), "COLUMNS": "150"}

"""What the controller of a sweep costs with 200 slots and thousands of short trials: CPU time, memory, Optuna's `ask`.

    python benchmarks/cluster.py [--trials 5000] [--slots 200] [--seconds 1] [--sampler tpe] [--postgresql URL]

Controller and Optuna's storage are real, but nothing trains: a pool without processes sends the messages of trainings
of one second with five epochs, which share one run. Time in which the controller only waits is skipped, so that 5,000
trials take minutes. Each storage is measured in a separate process. Times are CPU times of the controller's thread in
milliseconds: per trial the mean over each third of the trials, per call the median over the first, the middle and the
last 250.
"""

import argparse
import contextlib
import io
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.tracking.store import Store
from sweeps.search.controller import Controller
from sweeps.search.display import SweepDisplay
from sweeps.search.lock import sole_controller
from sweeps.search.open_study import open_study
from sweeps.search.space import Space
from sweeps.search.study_run import open_parent
from sweeps.search.trial_runs import TrialRuns
from sweeps.workers.job import Job
from sweeps.workers.pool import Message, WorkerProcess

RANGES = {
    "lr": {"low": 1e-4, "high": 0.1, "log": True},
    "dropout": {"low": 0.0, "high": 0.6},
    "width": {"low": 16, "high": 512},
    "batch_size": [64, 128, 256, 512],
}
FACTS = {"values": {}, "hash": "h", "config": {}, "defaults": {}, "max_epochs": 5}
EPOCHS, WINDOW = 5, 250


class Answers:
    """The pipe of a training without a process."""

    def __init__(self) -> None:
        self.stop = False

    def send(self, stop: bool) -> None:
        self.stop = stop


class FakePool:
    """A pool whose trainings take a fixed time on a clock that skips the time in which the controller waits."""

    stop_requests = 0

    def __init__(self, workers: int, seconds: float, run_id: str) -> None:
        self.workers, self._seconds, self._run_id = workers, seconds, run_id
        self.children: list[WorkerProcess] = []
        self._free = list(range(workers))
        self._due: dict[int, tuple[float, int]] = {}  # by slot: when its next message comes, and which
        self._skipped = 0.0  # seconds

    @property
    def free_slots(self) -> list[int]:
        return self._free

    @property
    def now(self) -> float:
        return time.monotonic() + self._skipped

    def start(self, *jobs: Job) -> None:
        (job,) = jobs
        job.slot = self._free.pop()
        child = WorkerProcess(job, None, Answers(), time.monotonic(), [], None)  # type: ignore[arg-type]
        child.run_id = self._run_id
        self.children.append(child)
        self._due[job.slot] = self.now + self._seconds / EPOCHS, 0

    def events(self, timeout: float) -> list[tuple[WorkerProcess, Message]]:
        if not self._due:
            return []
        self._skipped += max(0.0, min(timeout, min(self._due.values())[0] - self.now))
        now = self.now
        return [self._next(child) for child in list(self.children) if self._due[child.job.slot][0] <= now]

    def _next(self, child: WorkerProcess) -> tuple[WorkerProcess, Message]:
        when, epoch = self._due.pop(child.job.slot)
        value = quality(child.job.values, epoch)
        if epoch < EPOCHS and not child.pipe.stop:  # type: ignore[attr-defined]
            self._due[child.job.slot] = when + self._seconds / EPOCHS * (epoch < EPOCHS - 1), epoch + 1
            return child, ("epoch", epoch, value)
        self.children.remove(child)
        self._free.append(child.job.slot)
        done = {"selected/val/acc": value}
        return child, ("pruned", "") if child.pipe.stop else ("done", done)  # type: ignore[attr-defined]

    def kill_all(self) -> None:
        assert not self.children


def quality(values: dict[str, Any], epoch: int) -> float:
    """Return the metric of a configuration after an epoch."""
    best = 1 - abs(values["dropout"] - 0.2) - abs(values["lr"] - 0.01) - values["width"] / 10_000
    return float(best * (1 - 0.5 ** (epoch + 1)))


class Measured:
    """CPU and wall time of each call of a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.cpu: list[float] = []
        self.wall: list[float] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        begun, at = time.thread_time(), time.perf_counter()
        try:
            return self._function(*args, **kwargs)
        finally:
            self.cpu.append(time.thread_time() - begun)
            self.wall.append(time.perf_counter() - at)


def search(url: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run a study; return what it has cost."""
    store, name = Store(f"sqlite:///{folder / 'mlflow.db'}"), f"s{time.time_ns()}"
    settings = {"sampler": options.sampler, "pruner": options.pruner, "trials": options.trials, "confirm": 0}
    space = Space(name=name, experiment="e", space=RANGES, **settings)
    with contextlib.redirect_stdout(io.StringIO()), sole_controller(url, name) as storage, SweepDisplay() as display:
        study = open_study(storage, name, space, FACTS, "benchmark:1:1")
        parent = open_parent(store, study, "benchmark")
        pool = FakePool(options.slots, options.seconds, parent.run_id)
        controller = Controller(TrialRuns(study, parent, ["e"], 1), pool, display, 1)  # type: ignore[arg-type]
        study.ask = ask = Measured(study.ask)  # type: ignore[assignment, method-assign]
        marks, sizes = [], []
        study.tell = tell = Measured(study.tell)  # type: ignore[assignment, method-assign]

        def mark(*args: Any, ended: Callable[..., None] = display.trial_ended) -> None:
            ended(*args)
            marks.append(time.thread_time())
            sizes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

        display.trial_ended = mark  # type: ignore[method-assign]
        begun = pool.now
        controller.search()
        elapsed = pool.now - begun
        assert study.n_finished() == options.trials
        controller.close()
        parent.finish("FINISHED")
    busy = options.trials * options.seconds / (elapsed * options.slots)
    times = {"marks": marks, "ask": ask.cpu, "ask wall": ask.wall, "tell": tell.cpu}
    return {**times, "sizes": sizes, "elapsed": elapsed, "busy": busy}


def windows(times: list[float]) -> list[list[float]]:
    """Return the first, the middle and the last of these times."""
    size = min(WINDOW, len(times) // 3)
    return [times[:size], times[len(times) // 2 :][:size], times[-size:]]


def shown(values: list[float]) -> str:
    """Return seconds as text in milliseconds."""
    return " / ".join(f"{1000 * value:.1f}" for value in values)


def main() -> None:
    """Measure each storage in a separate process, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--trials", type=int, default=5000)
    add("--slots", type=int, default=200)
    add("--seconds", type=float, default=1.0, help="duration of a training")
    add("--sampler", default="random")
    add("--pruner", default="none")
    add("--storages", nargs="*", default=["journal", "sqlite"], choices=["journal", "sqlite", "postgresql"])
    add("--postgresql", metavar="URL", help="an empty database, measured too")
    options = parser.parse_args()
    console = Console(width=140)
    title = (
        f"{options.trials} trials of {options.seconds:g} s, {options.slots} slots, {options.sampler}, {options.pruner}"
    )
    table = Table("storage", title=title, title_justify="left", box=None)
    for column in ("trial", "ask", "ask, wall", "tell", "MB", "duration, s", "slots busy"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        urls = {"journal": str(folder / "journal"), "sqlite": f"sqlite:///{folder / 'optuna.db'}"}
        urls = {storage: url for storage, url in urls.items() if storage in options.storages}
        urls |= {"postgresql": options.postgresql} if options.postgresql else {}
        for storage, url in urls.items():
            with multiprocessing.get_context("spawn").Pool(1) as process:
                found = process.apply(search, (url, folder, options))
            third, marks = options.trials // 3, found["marks"]
            cells = [shown([(marks[i + third - 1] - marks[i]) / (third - 1) for i in (0, third, 2 * third)])]
            cells += [shown([*map(statistics.median, windows(found[key]))]) for key in ("ask", "ask wall", "tell")]
            sizes = found["sizes"]
            cells += [f"{sizes[0]:.0f} to {sizes[-1]:.0f}", f"{found['elapsed']:.0f}"]
            table.add_row(storage, *cells, f"{found['busy']:.0%}")
            print(storage, cells, flush=True)
    console.print(table)


if __name__ == "__main__":
    main()

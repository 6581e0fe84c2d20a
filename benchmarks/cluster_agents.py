"""What a controller costs with real agents: CPU time and memory of its process, on this machine and on a Ray cluster.

    python benchmarks/cluster_agents.py [--trials 48] [--epochs 5] [--slots 2 8]

Trials of `digits-mlp` on the worker processes of this machine, and on an agent of a cluster that Ray starts here. The
agent shares the CPUs with all trainings, so that wall times are those of one machine: what differs is the CPU time of
the controller, with the threads that Ray adds to it. Each sweep is measured in a separate process, from the call to its
end; a sweep of one trial, measured before, is subtracted, so that neither imports nor start-up count.
"""

import argparse
import contextlib
import io
import multiprocessing
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

SPACE = {
    "model.dropout": {"low": 0.0, "high": 0.5},
    "model.optimizer.lr": {"low": 3e-4, "high": 3e-2, "log": True},
}


def measure(folder: Path, trials: int, epochs: int, slots: int, cluster: str | None) -> tuple[float, float, float]:
    """Run a sweep in this process; return its CPU seconds, its wall seconds, and its largest memory in MB."""
    from pipelines.runtime.environment import cpu_count
    from sweeps.search.sweep import sweep

    name = f"{cluster or 'workers'}-{slots}-{trials}"
    space = {"experiment": "digits-mlp", "sampler": "random", "pruner": "none", "confirm": 0, "keep": "none"}
    space |= {"set": {"trainer.max_epochs": epochs}, "space": SPACE, "trials": trials}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(space))
    place: dict[str, Any] = {"workers": slots, "cluster": cluster}
    place |= {} if cluster is None else {"cpus": cpu_count() / slots}
    cpu_start, wall_start = time.process_time(), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        result = sweep(
            folder / f"{name}.yaml",
            **place,
            storage=str(folder / f"{name}.journal"),
            tracking_uri=f"sqlite:///{folder / 'mlflow.db'}",
        )
    assert result.n_finished == trials
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return time.process_time() - cpu_start, time.perf_counter() - wall_start, memory


def main() -> None:
    """Measure each number of slots on both, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--slots", type=int, nargs="+", default=[2, 8])
    options = parser.parse_args()
    table = Table("slots", "trainings on", title=f"{options.trials} trials of {options.epochs} epochs", box=None)
    for column in ("controller, ms of CPU per trial", "sweep, s", "controller, MB"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as name:
        for slots in options.slots:
            for cluster in (None, "local"):
                one, all_trials = (
                    in_process(Path(name), trials, options.epochs, slots, cluster) for trials in (1, options.trials)
                )
                per_trial = 1000 * (all_trials[0] - one[0]) / (options.trials - 1)
                where = "workers of this machine" if cluster is None else "a Ray cluster"
                cells = [f"{per_trial:.0f}", f"{all_trials[1]:.0f}", f"{all_trials[2]:.0f}"]
                table.add_row(str(slots), where, *cells)
                print(slots, where, cells, file=sys.stderr, flush=True)
    Console(width=110).print(table)


def in_process(*arguments: Any) -> tuple[float, float, float]:
    """Measure in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


if __name__ == "__main__":
    main()

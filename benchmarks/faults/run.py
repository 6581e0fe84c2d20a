"""Faults in real runs: what is done to them, how often, and what is lost.

    python benchmarks/faults/run.py [--only NAME ...] [--quick] [--seed S] [--data-dir FOLDER]

Fits and sweeps are killed, files are damaged, the server and the disk go away; then what is left is compared with runs
that were left alone. Ctrl-C stops; the same command goes on with the kinds that are not done. A complete call
writes the table into docs/RELIABILITY.md. The exit code is 1 if anything was lost.
"""

import argparse
import importlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from pipelines.tracking.client import MLFLOW_SETTINGS

os.environ["OMP_NUM_THREADS"] = "1"  # read by torch; every process trains on one core
os.environ.pop("LITLAB_UNSENT", None)  # copies of a project have runs of one name; what waits is beside each of them
os.environ.update(MLFLOW_SETTINGS)  # read by mlflow when it is imported

import report
from bench import Bench
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipelines.runtime.environment import cpu_count
from pipelines.runtime.signals import exit_on_sigterm

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/RELIABILITY.md"
KINDS = {
    "fits": "kill_fits",
    "sweeps": "kill_sweeps",
    "checkpoints": "harm_checkpoints",
    "data": "harm_data",
    "server": "lose_server",
    "disk": "fill_disk",
    "ranks": "kill_ranks",
}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=KINDS, help=", ".join(KINDS))
    parser.add_argument("--quick", action="store_true", help="one or two of each")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (0)")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where MNIST/raw may be (data)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".faults", help="for all that is made (.faults)")
    return parser.parse_args()


def try_kind(name: str, given: argparse.Namespace, results: report.Results, console: Console) -> None:
    """Try one kind, and keep its rows."""
    kind = importlib.import_module(KINDS[name])
    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(name, total=kind.total(given.quick))
        bench = Bench(
            name, given.folder, given.seed, given.quick, given.data_dir.absolute(), lambda: progress.advance(task)
        )
        for part in ("projects", "logs"):
            shutil.rmtree(bench.folder / part, ignore_errors=True)
        try:
            bench.warm_up()
            began = time.monotonic()
            rows = kind.table(bench)
        finally:
            bench.close()
    results.add(name, rows, time.monotonic() - began)
    for row in rows:
        console.print(f"{row.what}: {row.times}; lost: {report.lost_in(row)}", markup=False, highlight=False)


def main() -> int:
    """Try all kinds, or some; show the table, and write it if it is complete."""
    given = options()
    given.folder = given.folder.absolute()
    given.folder.mkdir(parents=True, exist_ok=True)
    console = Console()
    settings = {"seed": given.seed, "quick": given.quick, "data": given.data_dir.is_dir(), "source": report.source()}
    results = report.Results(given.folder / f"results{'-quick' * given.quick}.json", settings)
    console.print(f"scratch folder {given.folder}", highlight=False, soft_wrap=True)
    exit_on_sigterm()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also in a shell's background
    try:
        for name in KINDS:
            if name in (given.only or KINDS) and (given.only or name not in results.kinds):
                try_kind(name, given, results, console)
    except KeyboardInterrupt:
        console.print(f"stopped; done are {', '.join(results.kinds) or 'none'}; the same command goes on")
        return 130
    results.kinds = {name: results.kinds[name] for name in KINDS if name in results.kinds}
    report.show(results, console)
    if not given.only and not given.quick:
        command = f"make faults ARGS='--seed {given.seed}'" if given.seed else "make faults"
        report.rewrite(DOCUMENT, report.markdown(results, command, cpu_count()))
        console.print(f"written to {DOCUMENT.relative_to(ROOT)}")
    if not given.only:
        results.forget()
    return 1 if results.lost else 0


if __name__ == "__main__":
    sys.exit(main())

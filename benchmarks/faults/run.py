"""Inject faults into real runs, and report what is lost.

    python benchmarks/faults/run.py [--only NAME ...] [--quick] [--seed S] [--data-dir FOLDER]

Kills fits and sweeps, damages files, kills the server and fills the disk; then compares the outcome with undisturbed
runs. After Ctrl-C, the same command continues with the unfinished kinds of faults. A complete call writes the table
into docs/RELIABILITY.md. The faults of a Ray cluster have a table of their own, which `--only cluster` writes. The exit
code is 1 if anything was lost.
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

os.environ["OMP_NUM_THREADS"] = "1"  # read by torch: every process trains on one core
os.environ.pop("LITLAB_UNSENT", None)  # copies of a project have the same run ids: pending data stay with each
os.environ.update(MLFLOW_SETTINGS)  # read by mlflow when it is imported

import report
from bench import Bench
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipelines.runtime.environment import cpu_count
from pipelines.runtime.signals import exit_on_sigterm

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/RELIABILITY.md"
CLUSTER = "cluster"  # only if it is named
KINDS = {
    "fits": "kill_fits",
    "sweeps": "kill_sweeps",
    "checkpoints": "damage_checkpoints",
    "data": "damage_data",
    "server": "lose_server",
    "disk": "fill_disk",
    "ranks": "kill_ranks",
    CLUSTER: "kill_cluster",
}
USUAL = KINDS.keys() - {CLUSTER}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=KINDS, help=", ".join(KINDS))
    parser.add_argument("--quick", action="store_true", help="one or two faults of each kind")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments (0)")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder that may contain MNIST/raw (data)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".faults", help="scratch folder (.faults)")
    return parser.parse_args()


def run_kind(name: str, given: argparse.Namespace, results: report.Results, console: Console) -> None:
    """Inject the faults of one kind, and save its rows."""
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
            start = time.monotonic()
            rows = kind.table(bench)
        finally:
            bench.close()
    results.add(name, rows, time.monotonic() - start)
    for row in rows:
        console.print(f"{row.fault}: {row.times}; lost: {report.format_lost(row)}", markup=False, highlight=False)


def main() -> int:
    """Run all kinds or some, print the table, and write it into the document if all ran."""
    given = options()
    given.folder = given.folder.absolute()
    given.folder.mkdir(parents=True, exist_ok=True)
    console = Console()
    settings = {"seed": given.seed, "quick": given.quick, "data": given.data_dir.is_dir(), "source": report.source()}
    results = report.Results(given.folder / f"results{'-quick' * given.quick}.json", settings)
    console.print(f"scratch folder {given.folder}", highlight=False, soft_wrap=True)
    exit_on_sigterm()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also for a background job of a shell
    try:
        for name in KINDS:
            if name in (given.only or USUAL) and (given.only or name not in results.kinds):
                run_kind(name, given, results, console)
    except KeyboardInterrupt:
        finished = ", ".join(results.kinds) or "none"
        console.print(f"stopped; finished: {finished}. Run the same command again to continue.")
        return 130
    results.kinds = {name: results.kinds[name] for name in KINDS if name in results.kinds}
    report.show(results, console)
    if not given.quick and given.only in (None, [CLUSTER]):
        words = ["--only cluster"] * bool(given.only) + [f"--seed {given.seed}"] * bool(given.seed)
        command = f"make faults ARGS='{' '.join(words)}'" if words else "make faults"
        marks = report.CLUSTER_MARKS if given.only else report.MARKS
        report.rewrite(DOCUMENT, report.markdown(results, command, cpu_count()), marks)
        console.print(f"written to {DOCUMENT.relative_to(ROOT)}")
    if not given.only:
        results.delete()
    return 1 if results.lost else 0


if __name__ == "__main__":
    sys.exit(main())

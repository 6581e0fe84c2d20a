"""The results of `benchmarks/gpu.py` as text."""

import json
import re
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.console import Console
from rich.table import Table

from gpu_parts.jobs import PARTS

Result = dict[str, Any]
VARIANTS = (
    *("raw, eager", "raw, CUDA graph", "litlab", "litlab, data on the CPU", "litlab, CudaGraph"),
    "litlab, 16 steps in a graph",
    "Lightning, DataLoader workers",
)
NOISE = "The images of the cifar experiments are noise of CIFAR-10's sizes: only their times mean something."


def read_results(path: Path) -> list[Result]:
    """Return the results that have been appended to a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def show(results: list[Result], console: Console) -> bool:
    """Print the tables, and every error below them; return whether all has succeeded."""
    for result in results:
        if result["job"] == "machine":
            console.print(", ".join(f"{key} {value}" for key, value in result.items() if key not in ("job", "name")))
    for table in (_runs(results), _epochs(results), _usage(results), _stacks(results), _airbench(results)):
        if table.rows:
            console.print(table, "")
    console.print(NOISE)
    failed = [result for result in results if not result.get("ok", True)]
    for result in failed:
        console.print(f"failed: {result['job']}, {result['name']}: {result['error']}", markup=False)
    return not failed


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _runs(results: list[Result]) -> Table:
    """Of each job of part a: how much has succeeded, and what it has measured."""
    table = _table("does everything run", "job", "succeeded", "seconds", "measured")
    for job in PARTS["a"].limits_s:
        of_job = [result for result in results if result["job"] == job and result["name"] != "process"]
        if not of_job:
            continue
        done = sum(result["ok"] for result in of_job)
        measured = [_measured(result) for result in of_job if _measured(result)]
        seconds = sum(result["seconds"] for result in of_job)
        table.add_row(job, f"{done} of {len(of_job)}", f"{seconds:.0f}", "; ".join(measured))
    return table


def _measured(result: Result) -> str:
    keys = [key for key in result if "difference" in key or key == "of equal trainings"]
    return ", ".join(f"{result['name']}: {key} {result[key]:.1e}" for key in keys)


def _epochs(results: list[Result]) -> Table:
    """Median seconds per epoch, without the first."""
    columns = ("experiment", "precision", *VARIANTS, "litlab / eager", "of litlab: steps")
    table = _table("seconds per epoch, with validation", *columns)
    timed = [result for result in results if result.get("epochs") and "variant" in result]
    for precision, experiment in dict.fromkeys((result["precision"], result["experiment"]) for result in timed):
        found = {r["variant"]: r for r in timed if (r["precision"], r["experiment"]) == (precision, experiment)}
        seconds = {name: median(result["epochs"][1:]) for name, result in found.items()}
        cells = [f"{seconds[name]:.3f}" if name in seconds else "" for name in VARIANTS]
        eager, own = (seconds.get(VARIANTS[number]) for number in (0, 2))
        ratio = f"{own / eager:.2f}" if own and eager else ""
        steps = found[VARIANTS[2]].get("training", [])[1:] if own else []
        table.add_row(experiment, precision, *cells, ratio, f"{median(steps):.3f}" if steps else "")
    return table


def _usage(results: list[Result]) -> Table:
    table = _table("use of the device", "training", "utilisation %", "memory of tensors, MB", "of the device, MB")
    for result in results:
        if result["job"] == "usage" and "peak_MB" in result:
            memory = (f"{result[key]:.0f}" for key in ("peak_MB", "device_memory_MB"))
            table.add_row(result["name"], str(result["utilisation_percent"]), *memory)
    return table


def _stacks(results: list[Result]) -> Table:
    """Milliseconds per step of all models of a stack, of both variants, and the seconds of a search."""
    table = _table("models that train as one: ms per step of all", "models", "floor, CUDA graph", "litlab", "ratio")
    timed = {(r["experiment"], r["models"], r["variant"]): r["ms"] for r in results if "ms" in r}
    for experiment, size in dict.fromkeys(key[:2] for key in timed):
        floor, own = (timed.get((experiment, size, variant)) for variant in ("floor, CUDA graph", "litlab"))
        cells = [f"{ms:.3f}" if ms else "" for ms in (floor, own)]
        table.add_row(f"{size} {experiment}", *cells, f"{own / floor:.2f}" if own and floor else "")
    for result in results:
        if result["job"] == "stacked search" and result["name"] != "process":
            table.add_row(f"{result['name']}, whole search, s", "", f"{result['seconds']:.1f}", "")
    return table


def _airbench(results: list[Result]) -> Table:
    """Of each kind of training of part c: mean accuracy, and median seconds of its training steps."""
    table = _table("cifar-airbench", "training", "n", "accuracy", "seconds of steps", "with validation")
    kinds: dict[str, list[Result]] = {}
    for result in results:
        if "accuracy" in result:
            kind = re.sub(r", (seed|run) \d+", "", result["name"])
            kinds.setdefault(kind, []).append(result)
    for kind, found in kinds.items():
        whole = [result["with validation"] for result in found if "with validation" in result]
        seconds = median(result["steps"] for result in found)
        cells = (f"{fmean(result['accuracy'] for result in found):.4f}", f"{seconds:.2f}")
        table.add_row(kind, str(len(found)), *cells, f"{median(whole):.2f}" if whole else "")
    return table

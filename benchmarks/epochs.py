"""Seconds per epoch of ways to train, each in processes of its own that take turns; shared by the benchmarks.

An epoch lasts from its start to the next one's, so that validation, checkpoints and tracking count; the first is left
out.
"""

import json
import sys
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import fresh
from rich.console import Console
from rich.table import Table

MAX_SPREAD = 1.5  # median to lowest, of an undisturbed measurement


class Seconds(NamedTuple):
    """A point in time, or a span between two."""

    cpu: float
    wall: float


MARKS: list[Seconds] = []
"""The start of each epoch of this process, and the end of the last."""


def mark(*_: object) -> None:
    MARKS.append(Seconds(time.process_time(), time.perf_counter()))


def fit(experiment: str, options: Mapping[str, Any]) -> None:
    """`litlab fit`, with a timer among its callbacks, tracked in the current folder."""
    from pipelines.cli import main

    timer = {
        "trainer.accelerator": "cpu",
        "trainer.callbacks": "lightning.pytorch.callbacks.LambdaCallback",
        "trainer.callbacks.on_train_epoch_start": f"{__name__}.mark",
        "trainer.callbacks.on_train_end": f"{__name__}.mark",
        "tracking_uri": "sqlite:///mlflow.db",
    }
    if code := main(["fit", experiment, *(f"--{key}={value}" for key, value in {**timer, **options}.items())]):
        sys.exit(code)


def print_spans() -> None:
    """The last words of a process that was measured."""
    print(f"\n{json.dumps([Seconds(b.cpu - a.cpu, b.wall - a.wall) for a, b in pairwise(MARKS)])}")


def measure(script: str, way: str, options: Mapping[str, Any]) -> list[Seconds]:
    """Epochs of one training in a fresh process, without the first: `python SCRIPT --one=WAY --KEY=VALUE ...`."""
    given = {"one": way, **options}
    command = [str(Path(script).resolve()), *(f"--{key}={value}" for key, value in given.items())]
    terminal = {"TTY_COMPATIBLE": "1", "TERM": "xterm-256color"}  # rich draws bars as it does for a person
    words = fresh.python(command, terminal).out.splitlines()
    return [Seconds(*epoch) for epoch in json.loads(words[-1])][1:]


def take_turns(script: str, ways: Mapping[str, Mapping[str, Any]], repeats: int) -> dict[str, list[Seconds]]:
    """All epochs of each way, given its options."""
    epochs: dict[str, list[Seconds]] = {way: [] for way in ways}
    for repeat in range(repeats):
        for way, options in ways.items():
            spans = measure(script, way, options)
            epochs[way] += spans
            cpu, wall = (median(kind) for kind in zip(*spans, strict=True))
            print(f"{way:<9}{repeat + 1}/{repeats}  {cpu:.3f} CPU s, {wall:.3f} s per epoch", flush=True)
    return epochs


def report(epochs: dict[str, list[Seconds]], title: str, targets: list[tuple[str, str, float]]) -> None:
    """A table of medians, and each target: way above, way below, and the most that the ratio may be."""
    medians = {name: Seconds(*map(median, zip(*spans, strict=True))) for name, spans in epochs.items()}
    table = Table("way", title=title, title_justify="left", box=None, pad_edge=False)
    for column in ("CPU s/epoch", "lowest to highest", "x raw", "wall s/epoch", "x raw", "epochs"):
        table.add_column(column, justify="right")
    for name, (cpu, wall) in medians.items():
        spread = f"{min(epochs[name]).cpu:.2f} to {max(epochs[name]).cpu:.2f}"
        times_raw = [f"{cpu / medians['raw'].cpu:.2f}", f"{wall / medians['raw'].wall:.2f}"]
        table.add_row(name, f"{cpu:.3f}", spread, times_raw[0], f"{wall:.3f}", times_raw[1], str(len(epochs[name])))
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    slowed = [name for name, (cpu, _) in medians.items() if cpu > MAX_SPREAD * min(epochs[name]).cpu]
    for above, below, target in targets:
        ratio = medians[above].cpu / medians[below].cpu
        verdict = "unclear" if slowed else "met" if ratio <= target else "missed"
        console.print(f"{above}/{below} CPU  {ratio:.2f}  (target: at most {target:.2f}, {verdict})")
    if slowed:
        console.print(f"Other work slowed epochs of {', '.join(slowed)} down: these ratios mean nothing.")

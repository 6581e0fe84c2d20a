"""Seconds per epoch of several variants of a training; shared by the benchmarks.

Each training runs in a separate process, and the variants alternate. The time of an epoch is from its start to the
start of the next epoch, so it includes validation, checkpoints and tracking. The first epoch is not counted.
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

MAX_SPREAD = 1.5  # ratio of median to lowest, of an undisturbed measurement


class Seconds(NamedTuple):
    """A point in time, or a duration: CPU time of the process and wall time."""

    cpu: float
    wall: float


MARKS: list[Seconds] = []
"""The start of each epoch in this process, and the end of the last one."""


def mark(*_: object) -> None:
    """Record the current time. Also a Lightning callback function."""
    MARKS.append(Seconds(time.process_time(), time.perf_counter()))


def fit(experiment: str, options: Mapping[str, Any]) -> None:
    """Run `litlab fit` with a timer callback and a tracking store in the current folder."""
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


def print_epoch_times() -> None:
    """Print the duration of each epoch as JSON, as the last line of a measured process."""
    print(f"\n{json.dumps([Seconds(b.cpu - a.cpu, b.wall - a.wall) for a, b in pairwise(MARKS)])}")


def measure(script: str, variant: str, options: Mapping[str, Any]) -> list[Seconds]:
    """Return the duration of each epoch but the first of `python SCRIPT --one=VARIANT --KEY=VALUE ...`."""
    arguments = {"one": variant, **options}
    command = [str(Path(script).resolve()), *(f"--{key}={value}" for key, value in arguments.items())]
    terminal = {"TTY_COMPATIBLE": "1", "TERM": "xterm-256color"}  # rich draws progress bars as on a terminal
    lines = fresh.python(command, terminal).out.splitlines()
    return [Seconds(*epoch) for epoch in json.loads(lines[-1])][1:]


def measure_in_turn(script: str, variants: Mapping[str, Mapping[str, Any]], repeats: int) -> dict[str, list[Seconds]]:
    """Return the duration of all epochs of each variant.

    Args:
        script: The benchmark, which trains one variant if it is called with `--one=VARIANT`.
        variants: Options of each variant.
        repeats: Number of processes per variant.
    """
    epochs: dict[str, list[Seconds]] = {variant: [] for variant in variants}
    for repeat in range(repeats):
        for variant, options in variants.items():
            spans = measure(script, variant, options)
            epochs[variant] += spans
            cpu, wall = (median(kind) for kind in zip(*spans, strict=True))
            print(f"{variant:<9}{repeat + 1}/{repeats}  {cpu:.3f} CPU s, {wall:.3f} s per epoch", flush=True)
    return epochs


def report(epochs: dict[str, list[Seconds]], title: str, targets: list[tuple[str, str, float]]) -> None:
    """Print a table of medians, and whether each target is met: variant, baseline, highest ratio of CPU times."""
    medians = {name: Seconds(*map(median, zip(*spans, strict=True))) for name, spans in epochs.items()}
    table = Table("variant", title=title, title_justify="left", box=None, pad_edge=False)
    for column in ("CPU s/epoch", "lowest to highest", "x raw", "wall s/epoch", "x raw", "epochs"):
        table.add_column(column, justify="right")
    for name, (cpu, wall) in medians.items():
        spread = f"{min(epochs[name]).cpu:.2f} to {max(epochs[name]).cpu:.2f}"
        times_raw = [f"{cpu / medians['raw'].cpu:.2f}", f"{wall / medians['raw'].wall:.2f}"]
        table.add_row(name, f"{cpu:.3f}", spread, times_raw[0], f"{wall:.3f}", times_raw[1], str(len(epochs[name])))
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    slowed = [name for name, (cpu, _) in medians.items() if cpu > MAX_SPREAD * min(epochs[name]).cpu]
    for variant, baseline, target in targets:
        ratio = medians[variant].cpu / medians[baseline].cpu
        verdict = "unclear" if slowed else "met" if ratio <= target else "missed"
        console.print(f"{variant}/{baseline} CPU  {ratio:.2f}  (target: at most {target:.2f}, {verdict})")
    if slowed:
        console.print(f"Other processes slowed down epochs of {', '.join(slowed)}: the ratios are not valid.")

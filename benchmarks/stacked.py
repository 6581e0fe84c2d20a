"""Time of an epoch per model when N models are trained together, compared with `litlab fit` of each model alone.

    python benchmarks/stacked.py --data-dir data

Measures CPU seconds of one thread, per epoch and model, with validation, metrics and checkpoints as in the trials of a
sweep. The start and the end of a trial, which cost the same in both cases, and the first epoch are not counted. Each
model is measured in several separate processes, and all stack sizes one after another in each process. The result is
the lowest of their medians, because other processes can only add time. One thread is a fair measure because a sweep has
as many workers as there are cores.

MNIST is limited to 11,000 training and 1,000 validation images, so that 32 models take seconds.
"""

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import fresh
from rich.console import Console
from rich.table import Table

from pipelines.training.job import prepare_training

SUBSET = ("--data.n_train=11000", "--data.n_val=1000")
CASES: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "circles, 2-10-2, batch 10": ("circles", 12, ()),
    "digits-mlp, 784-128-64-10, batch 32": ("digits-mlp", 4, ()),
    "mnist-linear, 784-10, batch 100": ("mnist-linear", 4, SUBSET),
    "mnist-mlp-narrow, 784-10-10, batch 100": ("mnist-mlp-narrow", 4, SUBSET),
    "784-64-32-10, batch 100": ("mnist-mlp", 4, (*SUBSET, "--model.hidden=[64, 32]", "--data.batch_size=100")),
    "mnist-mlp, 784-512-256-10, batch 500": ("mnist-mlp", 3, SUBSET),
    "the same on 250 images, batch 50": ("mnist-mlp", 6, ("--data.n_train=250", "--data.batch_size=50", SUBSET[1])),
}
"""Experiment, number of epochs and overrides of each case."""


def separate(argv: list[str], uri: str) -> list[float]:
    """Return the CPU seconds of each epoch but the first with `litlab fit`."""
    from lightning.pytorch.callbacks import LambdaCallback

    from pipelines.config.cli import parse_config
    from pipelines.tracking.run import Run
    from pipelines.tracking.store import Store
    from pipelines.training.train import train

    marks: list[float] = []
    timer = LambdaCallback(
        on_train_epoch_start=lambda *_: marks.append(time.process_time()),
        on_train_end=lambda *_: marks.append(time.process_time()),
    )
    job = prepare_training(parse_config("fit", argv), [timer], test=False)
    train(job, Run(Store(uri), "separate", "one", {}))
    return [after - before for before, after in pairwise(marks)][1:]


def stacked(argv: list[str], uri: str, size: int) -> list[float]:
    """Return the CPU seconds of each epoch but the first, per model of a stack."""
    from pipelines.config.cli import parse_config
    from pipelines.tracking.run import Run
    from pipelines.tracking.store import Store
    from pipelines.training.train import run_trainer
    from sweeps.workers.stacked_training import Member, Ready, Stack

    members: list[Member] = []
    cli, store = parse_config("fit", argv), Store(uri)
    for number in range(size):
        ready = Ready()
        job = prepare_training(cli, [ready], test=False, like=members[0].job if members else None)
        members.append(Member(job, Run(store, "stacked", str(number), {}), seed=0))
        job.checkpoint_callback.bind_run(members[-1].run)
        run_trainer(job)
        members[-1].begin(ready.random)
    stack, marks = Stack(members), [time.process_time()]
    for epoch in range(members[0].job.trainer.max_epochs or 0):
        stack.train(epoch)
        for member, values in stack.validate().items():
            member.run.log_metrics(values, epoch)
        stack.end_epoch(epoch, validated=True)
        marks.append(time.process_time())
    return [(after - before) / size for before, after in pairwise(marks)][1:]


def measure(name: str, sizes: list[int], data_dir: Path) -> dict[int, float]:
    """Return the median by stack size, measured in this process; size 0 is a single training without a stack."""
    import torch

    from pipelines.runtime.silence import silence_lightning

    silence_lightning()
    torch.set_num_threads(1)
    experiment, epochs, overrides = CASES[name]
    argv = [experiment, f"--trainer.max_epochs={epochs}", "--trainer.enable_progress_bar=false", *overrides]
    argv += ["--trainer.accelerator=cpu"]
    argv += [f"--data.data_dir={data_dir}"] if "mnist" in experiment else []
    uri = f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    return {size: median(stacked(argv, uri, size) if size else separate(argv, uri)) for size in (0, *sizes)}


def in_process(name: str, args: argparse.Namespace) -> dict[int, float]:
    """Return the same, measured in a new process."""
    command = [str(Path(__file__).resolve()), f"--one={name}", f"--data-dir={args.data_dir.resolve()}"]
    command += [f"--sizes={','.join(map(str, args.sizes))}"]
    lines = fresh.python(command, {"OMP_NUM_THREADS": "1"}).out.splitlines()
    return {int(size): seconds for size, seconds in json.loads(lines[-1]).items()}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder that contains MNIST/raw")
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=[1, 4, 16, 32])
    parser.add_argument("--repeats", type=int, default=3, help="processes per model")
    parser.add_argument("--only", default="", help="only models whose name contains this")
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.sizes, args.data_dir)))
        return
    table = Table(title="CPU ms per epoch and model (ratio to litlab fit)", title_justify="left", box=None)
    for column in ("model", "litlab fit", *(f"stacked {size}" for size in args.sizes)):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name in (name for name in CASES if args.only in name):
        repeats = [in_process(name, args) for _ in range(args.repeats)]
        medians_ms = {size: 1000 * min(repeat[size] for repeat in repeats) for size in repeats[0]}
        cells = [f"{medians_ms[size]:.1f} ({medians_ms[size] / medians_ms[0]:.2f})" for size in args.sizes]
        print(f"{name}: {medians_ms[0]:.1f} ms, {', '.join(cells)}", flush=True)
        table.add_row(name, f"{medians_ms[0]:.1f}", *cells)
    Console(width=120, highlight=False).print(table)


if __name__ == "__main__":
    main()

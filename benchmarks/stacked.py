"""What an epoch of a model costs when N models train as one, against `litlab fit` of each for itself.

    python benchmarks/stacked.py --data-dir data

CPU seconds of one thread, per epoch and model, with validation, metrics and checkpoints as a sweep's trials have them;
the start and the end of a trial, which cost the same either way, are left out, and so is the first epoch. Each model
is measured in processes of its own, in all ways one after another, and the lowest of the medians counts: other work on
the machine can only add. One thread is the fair measure: a sweep has as many workers as there are cores.

MNIST is cut to 11,000 training and 1,000 validation images, so that 32 models take seconds.
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

FIFTH = ("--data.n_train=11000", "--data.n_val=1000")
CASES: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "circles, 2-10-2, batch 10": ("circles", 12, ()),
    "digits-mlp, 784-128-64-10, batch 32": ("digits-mlp", 4, ()),
    "mnist-linear, 784-10, batch 100": ("mnist-linear", 4, FIFTH),
    "mnist-mlp-narrow, 784-10-10, batch 100": ("mnist-mlp-narrow", 4, FIFTH),
    "784-64-32-10, batch 100": ("mnist-mlp", 4, (*FIFTH, "--model.hidden=[64, 32]", "--data.batch_size=100")),
    "mnist-mlp, 784-512-256-10, batch 500": ("mnist-mlp", 3, FIFTH),
    "the same on 250 images, batch 50": ("mnist-mlp", 6, ("--data.n_train=250", "--data.batch_size=50", FIFTH[1])),
}
"""Experiment, epochs and changes of each."""


def separate(argv: list[str], uri: str) -> list[float]:
    """CPU seconds of each epoch but the first, as `litlab fit` trains."""
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
    """CPU seconds of each epoch but the first, per model of a stack."""
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
    """The median of each way, in this process; size 0 is a training for itself."""
    import torch

    from pipelines.runtime.silence import silence_lightning

    silence_lightning()
    torch.set_num_threads(1)
    experiment, epochs, changes = CASES[name]
    argv = [experiment, f"--trainer.max_epochs={epochs}", "--trainer.enable_progress_bar=false", *changes]
    argv += ["--trainer.accelerator=cpu"]
    argv += [f"--data.data_dir={data_dir}"] if "mnist" in experiment else []
    uri = f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    return {size: median(stacked(argv, uri, size) if size else separate(argv, uri)) for size in (0, *sizes)}


def in_process(name: str, args: argparse.Namespace) -> dict[int, float]:
    """The same in a fresh process."""
    command = [str(Path(__file__).resolve()), f"--one={name}", f"--data-dir={args.data_dir.resolve()}"]
    command += [f"--sizes={','.join(map(str, args.sizes))}"]
    words = fresh.python(command, {"OMP_NUM_THREADS": "1"}).out.splitlines()
    return {int(size): seconds for size, seconds in json.loads(words[-1]).items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="the folder that holds MNIST/raw")
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=[1, 4, 16, 32])
    parser.add_argument("--repeats", type=int, default=3, help="processes of each model")
    parser.add_argument("--only", default="", help="models whose name has this in it")
    parser.add_argument("--one", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.sizes, args.data_dir)))
        return
    table = Table(title="CPU ms per epoch and model, and x litlab fit's", title_justify="left", box=None)
    for column in ("model", "litlab fit", *(f"stacked {size}" for size in args.sizes)):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name in (name for name in CASES if args.only in name):
        repeats = [in_process(name, args) for _ in range(args.repeats)]
        taken = {size: 1000 * min(repeat[size] for repeat in repeats) for size in repeats[0]}
        cells = [f"{taken[size]:.1f} ({taken[size] / taken[0]:.2f})" for size in args.sizes]
        print(f"{name}: {taken[0]:.1f} ms, {', '.join(cells)}", flush=True)
        table.add_row(name, f"{taken[0]:.1f}", *cells)
    Console(width=120, highlight=False).print(table)


if __name__ == "__main__":
    main()

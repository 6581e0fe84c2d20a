"""Lowest possible time of an epoch on this machine: its operations divided by the measured rate of matrix products.

    python benchmarks/floors.py [--data-dir data --measure NAME ...]

The rate is that of float32 products of 2048 x 2048 matrices with all threads. No epoch can be faster than this floor.
Convolutions and small matrices do not reach the rate, so some epochs cannot reach the floor. torch's FLOP counter
counts the operations in one forward and backward pass of a batch, two for a multiply-add. --measure trains experiments
with litlab, and shows the seconds of a complete epoch, including validation, next to the floor.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median

if any(token.startswith("--one") for token in sys.argv):
    from pipelines.cli import limit_thread_spinning

    limit_thread_spinning()

import torch
from epochs import Seconds, fit, measure_in_turn, print_epoch_times
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

EXPERIMENTS = (
    "digits-mlp",
    "mnist-linear",
    "mnist-mlp",
    "mnist-convnet",
    "deep-mnist",
    "paired-digits",
    "autoencoder",
    "cifar-base",
    "cifar-augmented",
    "cifar-resnet9",
)
SIZE = 2048


def rate() -> float:
    """Return the floating-point operations per second of a float32 matrix product, the best of 20."""
    a, b = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * SIZE**3 / min(seconds)


def operations(experiment: str, data_dir: Path) -> tuple[float, int]:
    """Return the floating-point operations per training example, forward and backward, and the number of examples."""
    from datamodules.in_memory import InMemoryDataModule
    from pipelines.config.cli import parse_config

    cli = parse_config(
        "fit", [experiment, *(f"--{key}={value}" for key, value in _data_dir(experiment, data_dir).items())]
    )
    data, model = cli.build()
    assert isinstance(data, InMemoryDataModule)
    data.setup("fit")
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    with FlopCounterMode(display=False) as counter:
        model.training_step(batch, 0).backward()
    return counter.get_total_flops() / len(batch[0]), len(data.train_set)


def _data_dir(experiment: str, data_dir: Path) -> dict[str, str]:
    return {} if experiment.startswith("digits") else {"data.data_dir": str(data_dir)}


def main() -> None:
    """Count, measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder that contains MNIST and CIFAR-10")
    parser.add_argument("--measure", nargs="*", default=[], metavar="NAME", help="experiments to train")
    parser.add_argument("--epochs", type=int, default=3, help="per experiment; the first is not counted")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    data_dir = args.data_dir.resolve()
    if args.one:
        fit(args.one, {**_data_dir(args.one, data_dir), "trainer.max_epochs": args.epochs})
        print_epoch_times()
        return
    operations_per_s = rate()
    epochs: dict[str, list[Seconds]] = {}
    if args.measure:
        options = {"epochs": args.epochs, "data-dir": data_dir}
        epochs = measure_in_turn(__file__, dict.fromkeys(args.measure, options), 1)
    title = f"{operations_per_s / 1e9:.0f} G operations per second, float32, {torch.get_num_threads()} threads"
    table = Table("experiment", title=title, title_justify="left", box=None, pad_edge=False)
    for column in ("M operations/example", "examples", "floor s/epoch", "litlab s/epoch", "x floor"):
        table.add_column(column, justify="right")
    for name in EXPERIMENTS:
        each, examples = operations(name, data_dir)
        floor = each * examples / operations_per_s
        measured = median(span.wall for span in epochs[name]) if name in epochs else None
        measured_cells = [f"{measured:.2f}", f"{measured / floor:.1f}"] if measured else ["", ""]
        table.add_row(name, f"{each / 1e6:.2f}", f"{examples:,}", f"{floor:.3f}", *measured_cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

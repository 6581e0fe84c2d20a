"""Trials per hour of `litlab sweep --workers 2`, compared with the same trials as separate scripts, one after another.

    python benchmarks/sweep_throughput.py [--data-dir FOLDER]

Both train the same configurations, a grid of dropout, batch size and learning rate, with the same data, model and
number of epochs, and log to MLflow on SQLite. The scripts are `python train.py --dropout 0.2 ...`, one per
configuration. Times are wall times of the commands, including start-up.
"""

import argparse
import itertools
import tempfile
from pathlib import Path

import fresh
import yaml
from fresh import LITLAB
from rich.console import Console
from rich.table import Table

GRID = {
    "model.dropout": [0.0, 0.1, 0.2, 0.3],
    "data.batch_size": [64, 128],
    "model.optimizer.lr": [1e-3, 2e-3, 3e-3, 5e-3],
}


def sweep(folder: Path, options: argparse.Namespace) -> float:
    """Return the wall time of the sweep, in seconds."""
    experiment = "mnist-mlp" if options.data_dir else "digits-mlp"
    space = {"experiment": experiment, "sampler": "grid", "confirm": 0, "space": GRID}
    (folder / "throughput.yaml").write_text(yaml.safe_dump(space))
    arguments = ["sweep", "-c", str(folder / "throughput.yaml"), "--workers", str(options.workers)]
    arguments += ["--tracking_uri", f"sqlite:///{folder / 'sweep' / 'mlflow.db'}"]
    arguments += ["--trainer.max_epochs", str(options.epochs)]
    arguments += ["--data.data_dir", options.data_dir] if options.data_dir else []
    return fresh.python([*LITLAB, *arguments]).seconds


def scripts(folder: Path, options: argparse.Namespace) -> float:
    """Return the wall time of all scripts, in seconds."""
    script = str(Path(__file__).with_name("train.py"))
    total = 0.0
    for dropout, batch_size, lr in itertools.product(*GRID.values()):
        arguments = ["--dropout", str(dropout), "--batch-size", str(batch_size), "--lr", str(lr)]
        arguments += ["--epochs", str(options.epochs), "--tracking-uri", f"sqlite:///{folder / 'scripts.db'}"]
        arguments += ["--data-dir", options.data_dir] if options.data_dir else []
        total += fresh.python([script, *arguments]).seconds
    return total


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="folder that contains MNIST; default: the bundled digits")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    trials = len(list(itertools.product(*GRID.values())))
    with tempfile.TemporaryDirectory() as folder:
        methods = {f"litlab sweep --workers {options.workers}": sweep, "python train.py, one after another": scripts}
        taken = {name: method(Path(folder), options) for name, method in methods.items()}
    table = Table(title=f"{trials} trials of {options.epochs} epochs", title_justify="left", box=None)
    for column in ("variant", "total s", "s per trial", "trials per hour", "ratio"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    slowest = max(taken.values())
    for name, value in taken.items():
        each = value / trials
        table.add_row(name, f"{value:.1f}", f"{each:.2f}", f"{3600 / each:.0f}", f"{slowest / value:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()

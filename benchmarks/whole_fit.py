"""A whole `litlab fit digits-mlp`, from the start to the prompt, and a script with MLFlowLogger that trains the same.

    python benchmarks/whole_fit.py

The script has the same network, data, optimiser and epochs, keeps the best checkpoint, tests it once, and logs params
and metrics to MLflow; it draws no figures and logs no model. The two alternate. CPU seconds include those of child
processes. The tail is from the end of the last epoch to the end of the process.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

import fresh
from rich.console import Console
from rich.table import Table

TARGET = 0.7  # highest ratio of the wall times of litlab and the script
CALLBACK = """
import os, time
from lightning.pytorch import Callback

class Marks(Callback):
    def mark(self, *args):
        with open(os.environ["MARKS"], "a") as file:
            print(time.time(), file=file)

    on_train_epoch_start = on_train_end = mark
"""
SCRIPT = """
from functools import partial
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import MLFlowLogger
from datamodules.digits import Digits
from modules.mlp import MLP
from marks import Marks

seed_everything(0)
data = Digits(batch_size=32)
optimizer = partial(torch.optim.Adam, lr=0.001, fused=True)
model = MLP(data.input_shape, data.num_classes, hidden=[128, 64], dropout=0.2, optimizer=optimizer)
logger = MLFlowLogger(experiment_name="digits", tracking_uri="sqlite:///mlflow.db")
logger.log_hyperparams({"batch_size": 32, "hidden": [128, 64], "dropout": 0.2, "lr": 0.001})
best = ModelCheckpoint(monitor="val/acc", mode="max", save_last=True)
trainer = Trainer(max_epochs=20, logger=logger, callbacks=[best, Marks()], accelerator="cpu")
trainer.fit(model, datamodule=data)
trainer.test(model, datamodule=data, ckpt_path="best", weights_only=True)
"""
FIT = ["fit", "digits-mlp", "--trainer.accelerator=cpu", "--trainer.callbacks=marks.Marks"]


class Times(NamedTuple):
    """Seconds of one call: wall, CPU, until the first step, tail; the longest epoch but the first, in medians."""

    wall: float
    cpu: float
    first_step: float
    tail: float
    longest_epoch: float


def measure(arguments: list[str], folder: Path) -> Times:
    """Run one variant in a new process with an empty MLflow database."""
    marks = folder / "marks.txt"
    marks.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as store:
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
        fresh.python(arguments, {"MARKS": str(marks), "MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db"})
        end, after = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    moments = [float(line) for line in marks.read_text().splitlines()]
    epochs = [later - earlier for earlier, later in pairwise(moments)]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Times(end - start, cpu, moments[0] - start, end - moments[-1], max(epochs[1:]) / median(epochs))


def main() -> None:
    """Measure both variants in turn, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for all measurements")
    options = parser.parse_args()
    variants = {"litlab": [*fresh.LITLAB, *FIT], "script": ["-c", SCRIPT]}
    taken: dict[str, list[Times]] = {name: [] for name in variants}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "marks.py").write_text(CALLBACK)
        os.environ["PYTHONPATH"] = os.pathsep.join([name, os.environ.get("PYTHONPATH", "")])
        for _ in range(options.repeats + 1):
            for variant, arguments in variants.items():
                taken[variant].append(measure(arguments, folder))
    if options.json:
        options.json.write_text(json.dumps(taken))
    medians = {name: Times(*map(median, zip(*times[1:], strict=True))) for name, times in taken.items()}
    table = Table(
        "", "wall s", "CPU s", "to the first step", "tail", "longest epoch / median", box=None, pad_edge=False
    )
    for name, times in medians.items():
        table.add_row(name, *(f"{value:.2f}" for value in times))
    console = Console(width=100, highlight=False)
    console.print(table)
    ratio = medians["litlab"].wall / medians["script"].wall
    console.print(f"litlab/script  {ratio:.2f} wall (target: at most {TARGET})")


if __name__ == "__main__":
    main()

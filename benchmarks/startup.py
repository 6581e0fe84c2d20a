"""What starting costs: commands, a fit until its first step, and a trial of a sweep until its first step.

    python benchmarks/startup.py

Wall seconds, medians; ways that are compared take turns. "Until the first step" is from the start of the process to the
first batch of training, when the process ends itself. The bare script has litlab's model and data, and Lightning's
Trainer without a logger. The usual trial is a script like benchmarks/train.py for each configuration.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import fresh
from fresh import LITLAB
from rich.console import Console
from rich.table import Table

FIRST_STEP = """
import os, time
from pathlib import Path
from lightning.pytorch import Callback

class FirstStep(Callback):
    def on_train_batch_start(self, *args):
        first = Path(os.environ["FIRST_STEP"])
        if not first.exists():
            first.write_text(str(time.time()))
        if "GO_ON" not in os.environ:
            os._exit(0)
"""
BARE = """
from lightning.pytorch import Trainer, seed_everything
from datamodules.digits import Digits
from modules.mlp import MLP
from first_step import FirstStep
seed_everything(0)
data = Digits(batch_size=32)
model = MLP(data.input_shape, data.num_classes, hidden=[128, 64], dropout=0.2)
Trainer(max_epochs=1, callbacks=[FirstStep()], logger=False, accelerator="cpu").fit(model, datamodule=data)
"""
LIGHTNING_CLI = """
from lightning.pytorch.cli import LightningCLI
from datamodules.digits import Digits
from modules.mlp import MLP
LightningCLI(MLP, Digits, args=["fit", "--help"])
"""
FIT = ["fit", "digits-mlp", "--trainer.accelerator=cpu", "--trainer.callbacks=first_step.FirstStep"]


def trial(folder: Path) -> float:
    """From the order to start a trial to its first step, in a pool that is warm."""
    from sweeps.workers.job import Job
    from sweeps.workers.pool import Pool

    os.environ["GO_ON"] = "yes"
    sys.path.insert(0, str(folder))  # which the processes take over
    first = Path(os.environ["FIRST_STEP"])
    with Pool(1, folder) as pool:
        pool.warm_up()
        times = []
        for number in range(4):
            arguments = [*FIT[1:], "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"]
            uri, seed = os.environ["MLFLOW_TRACKING_URI"], number
            job = Job(arguments=arguments, seed=seed, experiment="trials", tracking_uri=uri, run_name="trial", tags={})
            first.unlink(missing_ok=True)
            began = time.time()
            pool.start(job)
            while pool.children:
                for child, message in pool.events(0.1):
                    if message[0] == "epoch":
                        child.answer(stop=False)
                    elif message[0] != "done":
                        sys.exit(f"a trial {message[0]}: {message[1]}")
            times.append(float(first.read_text()) - began)
    del os.environ["GO_ON"], sys.path[0]
    return median(times[1:])  # the first waits for the server to import everything, once in a sweep


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "first_step.py").write_text(FIRST_STEP)
        os.environ["FIRST_STEP"] = str(folder / "first")
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        ways: dict[str, Callable[[], float]] = {
            "litlab --help": lambda: fresh.python([*LITLAB, "--help"]).seconds,
            "litlab list": lambda: fresh.python([*LITLAB, "list"]).seconds,
            "LightningCLI fit --help": lambda: fresh.python(["-c", LIGHTNING_CLI]).seconds,
            "litlab fit, until its first step": lambda: fresh.python([*LITLAB, *FIT]).seconds,
            "a bare Lightning script, until its first step": lambda: fresh.python(["-c", BARE]).seconds,
            "a trial of a sweep, until its first step": lambda: trial(folder),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.repeats + 1):
            for name, way in ways.items():
                taken[name].append(way())
    table = Table("what", box=None, pad_edge=False)
    for column in ("s (median)", "lowest to highest"):
        table.add_column(column, justify="right")
    for name, times in taken.items():
        kept = times[1:]  # the first has cold files
        table.add_row(name, f"{median(kept):.2f}", f"{min(kept):.2f} to {max(kept):.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()

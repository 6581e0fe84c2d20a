"""Start-up time of commands, of a fit until its first step, and of a trial of a sweep until its first step.

    python benchmarks/startup.py

The results are medians of wall seconds; the cases alternate. "Until the first step" is from the start of the process to
the first training batch, where the process exits. The bare script uses litlab's model and data, and Lightning's Trainer
without a logger.
"""

import argparse
import os
import subprocess
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
        if "CONTINUE" not in os.environ:
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


def mistake(*arguments: str) -> float:
    """Return the time until litlab has refused a command."""
    code = f"import sys; from pipelines.cli import main; sys.exit(main({list(arguments)!r}) != 2)"
    return fresh.python(["-c", code]).seconds


def first_output() -> float:
    """Return the time from the start of `litlab fit` until something is on the terminal."""
    reader, writer = os.openpty()
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, *LITLAB, *FIT], stdout=writer, stderr=writer) as process:
        os.read(reader, 1)
        seconds = time.perf_counter() - start
        process.terminate()
    os.close(writer)
    os.close(reader)
    return seconds


def trial(folder: Path) -> float:
    """Return the time from the request to start a trial to its first step, in a warm pool."""
    from sweeps.workers.job import Job
    from sweeps.workers.pool import Pool

    os.environ["CONTINUE"] = "yes"
    sys.path.insert(0, str(folder))  # the worker processes inherit it
    first = Path(os.environ["FIRST_STEP"])
    with Pool(1, folder) as pool:
        pool.warm_up()
        times = []
        for number in range(4):
            arguments = [*FIT[1:], "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"]
            uri, seed = os.environ["MLFLOW_TRACKING_URI"], number
            job = Job(arguments=arguments, seed=seed, experiment="trials", tracking_uri=uri, run_name="trial", tags={})
            first.unlink(missing_ok=True)
            start = time.time()
            pool.start(job)
            while pool.children:
                for child, message in pool.events(0.1):
                    if message[0] == "epoch":
                        child.answer(stop=False)
                    elif message[0] != "done":
                        sys.exit(f"trial {message[0]}: {message[1]}")
            times.append(float(first.read_text()) - start)
    del os.environ["CONTINUE"], sys.path[0]
    return median(times[1:])  # the first waits for the fork server's imports, which happen once in a sweep


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "first_step.py").write_text(FIRST_STEP)
        os.environ["FIRST_STEP"] = str(folder / "first")
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        cases: dict[str, Callable[[], float]] = {
            "litlab --help": lambda: fresh.python([*LITLAB, "--help"]).seconds,
            "litlab list": lambda: fresh.python([*LITLAB, "list"]).seconds,
            "litlab fit --help": lambda: fresh.python([*LITLAB, "fit", "--help"]).seconds,
            "litlab fit, a mistake in the experiment's name": lambda: mistake("fit", "digits-mpl"),
            "litlab fit, a mistake in a key": lambda: mistake("fit", "digits-mlp", "--modl.dropout=0.3"),
            "litlab fit, until its first output on a terminal": first_output,
            "LightningCLI fit --help": lambda: fresh.python(["-c", LIGHTNING_CLI]).seconds,
            "litlab fit, until its first step": lambda: fresh.python([*LITLAB, *FIT]).seconds,
            "a bare Lightning script, until its first step": lambda: fresh.python(["-c", BARE]).seconds,
            "a trial of a sweep, until its first step": lambda: trial(folder),
        }
        taken: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(options.repeats + 1):
            for name, case in cases.items():
                taken[name].append(case())
    table = Table("case", box=None, pad_edge=False)
    for column in ("s (median)", "lowest to highest"):
        table.add_column(column, justify="right")
    for name, times in taken.items():
        counted = times[1:]  # the first reads files that are not cached
        table.add_row(name, f"{median(counted):.2f}", f"{min(counted):.2f} to {max(counted):.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()

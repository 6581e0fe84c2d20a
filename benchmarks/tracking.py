"""Cost of logging 20 metrics per epoch to MLflow, with litlab and with one call of MLflow's client for each metric.

    python benchmarks/tracking.py

Both variants write the same values to a SQLite database on this disk, and alternate. litlab's time includes writing its
metrics file and the end of the run, when the remaining metrics are sent. An epoch lasts --pause seconds, as in a
training, so litlab sends several epochs in one call. CPU seconds are those of the process.
"""

import argparse
import tempfile
import time
from statistics import median

from rich.console import Console
from rich.table import Table

from pipelines.tracking.run import Run
from pipelines.tracking.store import Store

METRICS = 20


def names() -> list[str]:
    return [f"val/metric_{number}" for number in range(METRICS)]


def litlab(store: Store, epochs: int, pause: float) -> float:
    """Return the CPU seconds of all epochs with a `Run`, including its end."""
    run = Run(store, "litlab", "run", {})
    start = time.process_time()
    for epoch in range(epochs):
        run.log_metrics({name: 1.0 / (epoch + 1) for name in names()}, epoch)
        time.sleep(pause)
    run.finish("FINISHED")
    return time.process_time() - start


def mlflow_client(store: Store, epochs: int, pause: float) -> float:
    """Return the CPU seconds of all epochs with one call for each metric."""
    run_id = store.client.create_run(store.experiment_id("mlflow_client")).info.run_id
    start = time.process_time()
    for epoch in range(epochs):
        for name in names():
            store.client.log_metric(run_id, name, 1.0 / (epoch + 1), step=epoch)
        time.sleep(pause)
    store.client.set_terminated(run_id)
    return time.process_time() - start


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--pause", type=float, default=0.5, help="simulated seconds per epoch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epoch-cpu", type=float, help="CPU seconds of an epoch to compare with")
    options = parser.parse_args()
    methods = {"litlab": litlab, "one call for each metric": mlflow_client}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{folder}/mlflow.db")
        taken: dict[str, list[float]] = {name: [] for name in methods}
        for _ in range(options.repeats + 1):
            for name, method in methods.items():
                taken[name].append(method(store, options.epochs, options.pause) / options.epochs)
    medians = {name: median(times[1:]) for name, times in taken.items()}
    title = f"{METRICS} metrics per epoch, {options.epochs} epochs"
    table = Table("variant", title=title, title_justify="left", box=None)
    for column in ("CPU ms per epoch", "lowest to highest", "x litlab"):
        table.add_column(column, justify="right")
    for name, value in medians.items():
        spread = f"{min(taken[name][1:]) * 1000:.1f} to {max(taken[name][1:]) * 1000:.1f}"
        table.add_row(name, f"{value * 1000:.1f}", spread, f"{value / medians['litlab']:.1f}")
    Console().print(table)
    if options.epoch_cpu:
        print(f"litlab: {medians['litlab'] / options.epoch_cpu:.2%} of an epoch of {options.epoch_cpu:g} CPU s")


if __name__ == "__main__":
    main()

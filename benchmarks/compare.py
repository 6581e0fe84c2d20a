"""Time of `litlab compare` in a database of 10,000 runs, compared with the search of MLflow's client alone.

    python benchmarks/compare.py

MLflow's client writes one run with the params, tags, metrics and data set of a litlab run. Its rows are then cloned by
SQL, to experiments of 200 runs with 40 configurations and 5 seeds. Selecting and comparing the runs of one experiment,
and of all experiments, alternates in this process with the client's search for the same runs (in one page). Then the
complete command alternates with a Python process that only searches.
"""

import argparse
import itertools
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from statistics import median
from typing import Any

from fresh import LITLAB
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag
from rich.console import Console
from rich.table import Table

from pipelines.comparison.compare import with_looks
from pipelines.comparison.rows import group_and_rank
from pipelines.tracking.query import find_runs
from pipelines.tracking.store import Store

FINISHED = "attributes.status = 'FINISHED'"
DROPOUTS, RATES, SEEDS = [f"0.{digit}" for digit in range(8)], ["0.001", "0.002", "0.005", "0.01", "0.02"], range(5)
PER_EXPERIMENT = len(DROPOUTS) * len(RATES) * len(SEEDS)
FIXED = ("init", "loss", "optimizer", "optimizer.eps", "optimizer.betas", "optimizer.amsgrad", "optimizer.fused")
KINDS = ("train/acc", "train/loss", "val/acc", "val/loss", "test/acc", "test/loss", "train_end/acc", "train_end/loss")
SEARCH = """
from mlflow import MlflowClient
client = MlflowClient({uri!r})
number = client.get_experiment_by_name({name!r}).experiment_id
assert len(client.search_runs([number], {wanted!r}, max_results=50_000)) == {runs}
"""
Work = Callable[[], object]


def build(uri: str, experiments: int) -> list[str]:
    """Fill an empty database; return the names of its experiments."""
    store = Store(uri)
    names = [f"experiment-{number:02}" for number in range(experiments)]
    numbers = [store.experiment_id(name) for name in names]
    template = _real_run(store.client, numbers[0])
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as database:
        _clone(database, template, numbers)
        database.execute("ANALYZE")
    store.client.delete_run(template)
    return names


def _real_run(client: MlflowClient, experiment: str) -> str:
    """Write a finished run with 31 params, 26 tags, 20 metrics and one data set; return its id."""
    run_id = str(client.create_run(experiment, run_name="seed=0").info.run_id)
    params = {"model": "modules.mlp.MLP", "model.dropout": "0.0", "model.optimizer.lr": "0.001", "seed_everything": "0"}
    params |= {f"model.{key}": "fixed" for key in FIXED} | {f"data.key_{number}": "[256, 128]" for number in range(20)}
    tags = {"seed": "0"} | {f"data.sha256.{split}": uuid.uuid4().hex * 2 for split in ("train", "val", "test")}
    tags |= {f"version.package_{number}": "1.2.3" for number in range(10)}
    tags |= {"litlab.config_hash": uuid.uuid4().hex * 2}
    tags |= {f"litlab.tag_{number}": "what the run says of where it comes from" for number in range(8)}
    metrics = {key: 0.9 for kind in KINDS for key in (kind, f"selected/{kind}")}
    metrics |= {"fit_seconds": 11.0, "parameters": 235146.0, "selected_epoch": 10.0, "epochs": 20.0}
    client.log_batch(
        run_id,
        params=[Param(key, value) for key, value in params.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
        metrics=[Metric(key, value, 0, epoch) for epoch in range(10) for key, value in metrics.items()],
    )
    client.log_inputs(run_id, datasets=[DatasetInput(Dataset("data", "digest", "litlab", "{}", profile="{}"))])
    client.set_terminated(run_id)
    return run_id


def _clone(database: sqlite3.Connection, template: str, experiments: list[str]) -> None:
    """Copy a run's rows in all tables, with different ids, experiments, configurations, seeds and accuracies."""
    draw = random.Random(0)
    each = list(itertools.product(experiments, DROPOUTS, RATES, SEEDS))
    clones = [
        (f"{draw.getrandbits(128):032x}", *which, 0.9 + draw.gauss(0, 0.01), start) for start, which in enumerate(each)
    ]
    database.execute("CREATE TEMP TABLE clones (id, experiment, dropout, rate, seed, noise, start)")
    database.executemany("INSERT INTO clones VALUES (?, ?, ?, ?, ?, ?, ?)", clones)
    changed = {
        "runs": {"run_uuid": "id", "experiment_id": "experiment", "start_time": "start_time + start"},
        "params": {
            "run_uuid": "id",
            "value": "CASE key WHEN 'model.dropout' THEN dropout WHEN 'model.optimizer.lr' THEN rate "
            "WHEN 'seed_everything' THEN CAST(seed AS TEXT) ELSE value END",
        },
        "tags": {
            "run_uuid": "id",
            "value": "CASE key WHEN 'seed' THEN CAST(seed AS TEXT) "
            "WHEN 'litlab.config_hash' THEN value || dropout || rate ELSE value END",
        },
        "latest_metrics": {"run_uuid": "id", "value": "CASE WHEN key LIKE '%/acc' THEN noise ELSE value END"},
        "metrics": {"run_uuid": "id"},
        "inputs": {"input_uuid": "lower(hex(randomblob(16)))", "destination_id": "id"},
    }
    for table, change in changed.items():
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        own = next(name for name in change if name in ("run_uuid", "destination_id"))
        values = ", ".join(change.get(name, f"{table}.{name}") for name in columns)
        names = ", ".join(f'"{name}"' for name in columns)
        database.execute(
            f"INSERT INTO {table} ({names}) SELECT {values} FROM {table}, clones WHERE {table}.{own} = ?", [template]
        )


def alternately(works: dict[str, Work], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each repetition, in alternating order; the first round is dropped."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name in list(works)[:: 1 if repeat % 2 else -1]:
            began = time.perf_counter()
            works[name]()
            times[name].append(time.perf_counter() - began)
    return {name: taken[1:] for name, taken in times.items()}


def here(store: Store, names: list[str], every: list[str]) -> dict[str, Work]:
    """Return the comparison, and the client's search for the same runs."""
    found = [store.client.get_experiment_by_name(name) for name in names or every]
    numbers = [experiment.experiment_id for experiment in found if experiment]
    return {
        "select and compare": lambda: with_looks(group_and_rank(find_runs(store, names))),
        "the same without the looks at the test set": lambda: group_and_rank(find_runs(store, names)),
        "client.search_runs": lambda: store.client.search_runs(numbers, FINISHED, max_results=50_000),
    }


def processes(uri: str, name: str) -> dict[str, Work]:
    """Return the command, and a process that only searches."""
    search = SEARCH.format(uri=uri, name=name, wanted=FINISHED, runs=PER_EXPERIMENT)
    ours = [sys.executable, *LITLAB, "compare", name, "--tracking_uri", uri]
    return {
        "litlab compare NAME": lambda: subprocess.run(ours, check=True, capture_output=True),
        "python -c, search only": lambda: subprocess.run([sys.executable, "-c", search], check=True),
    }


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=positive, default=50, help=f"of {PER_EXPERIMENT} runs each")
    parser.add_argument("--repeats", type=positive, default=7, help="of 200 runs, and of the command")
    parser.add_argument("--repeats-all", type=positive, default=5, help="of all runs")
    options = parser.parse_args()
    table = Table("what", "of", title_justify="left", box=None, pad_edge=False)
    for column in ("s (median)", "lowest to highest", "x the search"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        names = build(uri, options.experiments)
        store, one = Store(uri), names[len(names) // 2]
        rounds: dict[str, tuple[dict[str, Any], int]] = {
            f"{PER_EXPERIMENT:,} runs": (here(store, [one], names), options.repeats),
            f"{PER_EXPERIMENT * len(names):,} runs": (here(store, [], names), options.repeats_all),
            f"{PER_EXPERIMENT:,} runs, process": (processes(uri, one), options.repeats),
        }
        for of, (works, repeats) in rounds.items():
            times = alternately(works, repeats)
            search = median(list(times.values())[-1])
            for name, taken in times.items():
                spread = f"{min(taken):.2f} to {max(taken):.2f}"
                table.add_row(name, of, f"{median(taken):.3f}", spread, f"{median(taken) / search:.2f}")
    Console(width=120, highlight=False).print(table)


if __name__ == "__main__":
    main()

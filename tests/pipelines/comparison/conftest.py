"""Fixtures of comparisons: runs written by MLflow's client, and what `litlab compare` says of them."""

import itertools
import json

import pytest
from mlflow.entities import Metric, Param, RunTag

from pipelines.tracking.store import Store

SAME = {"model": "modules.mlp.MLP", "model.hidden": "[32]", "data.n_train": "200"}
ACCURACIES = {"0.0": (0.92, 0.93, 0.91), "0.3": (0.95, 0.97, 0.96), "0.5": (0.951, 0.967, 0.958)}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """One database for all tests of this file; each test uses its own experiments."""
    return Store(f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}")


@pytest.fixture
def write(store):
    """Return a function that writes a finished run and returns its id; each starts a second after the one before."""
    starts = itertools.count(1_700_000_000_000, 1000)

    def run(experiment, params, seed=None, tags=(), **metrics) -> str:
        start = next(starts)
        measured = {"test/acc": 0.9, "fit_seconds": 61.0, "parameters": 235146.0, "selected_epoch": 4.0}
        measured |= {key.replace("__", "/"): value for key, value in metrics.items()}
        tags = [RunTag(key, value) for key, value in [*dict(tags).items(), *([("seed", str(seed))] if seed else [])]]
        run_id = store.client.create_run(store.experiment_id(experiment), start_time=start).info.run_id
        logged = [Metric(key, value, start, 0) for key, value in measured.items() if value is not None]
        store.client.log_batch(run_id, logged, [Param(key, value) for key, value in params.items()], tags)
        store.client.set_terminated(run_id)
        return str(run_id)

    return run


@pytest.fixture
def dropouts(write, store) -> str:
    """Three configurations with three seeds each."""
    if store.client.get_experiment_by_name("dropouts") is None:
        for dropout, accuracies in ACCURACIES.items():
            for seed, acc in enumerate(accuracies, 1):
                epoch = {"selected_epoch": float(seed)}
                write("dropouts", {**SAME, "model.dropout": dropout}, seed, test__acc=acc, val__loss=1 - acc, **epoch)
    return "dropouts"


@pytest.fixture
def records(litlab):
    """Return a function that runs `litlab compare --format json` and parses its output."""

    def read(*args: str) -> list[dict]:
        outcome = litlab("compare", *args, "--format", "json")
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    return read

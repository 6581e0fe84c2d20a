"""Compare a run with an undisturbed one: every tensor, every metric value, every file."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from bench import Project
from mlflow import MlflowClient

from pipelines.tracking.uri import local_path

TIMES = ("timestamp", "fit_seconds")
PARTS = ("epoch", "global_step", "loops", "state_dict", "optimizer_states", "lr_schedulers")


def all_runs(uri: str) -> list[Any]:
    """Return all runs, the oldest first."""
    client = MlflowClient(uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(ids, order_by=["attributes.start_time ASC"], max_results=1000))


def folder_of(uri: str, run: Any) -> Path:
    """Return the folder of a run's artifacts; artifacts on a server are downloaded."""
    local = local_path(run.info.artifact_uri)
    return local if local is not None else Path(MlflowClient(uri).download_artifacts(run.info.run_id, ""))


def metric_values(uri: str, run: Any) -> list[tuple[str, int, float]]:
    """Return key, epoch and value of all metrics in the store, except times."""
    client = MlflowClient(uri)
    keys = [key for key in run.data.metrics if key not in TIMES]
    history = [point for key in keys for point in client.get_metric_history(run.info.run_id, key)]
    return sorted((point.key, point.step, point.value) for point in history)


def differences(uri: str, run_id: str, reference_uri: str, reference_id: str) -> list[str]:
    """Return the differences between a run and the reference run; empty if they are bit-identical."""
    run, reference = MlflowClient(uri).get_run(run_id), MlflowClient(reference_uri).get_run(reference_id)
    logged: list[Any] = [
        run.inputs.dataset_inputs if run.inputs else [],
        run.outputs.model_outputs if run.outputs else [],
    ]
    folders = folder_of(uri, run), folder_of(reference_uri, reference)
    pairs: dict[str, tuple[Any, Any]] = {
        "status": (run.info.status, "FINISHED"),
        "params": (run.data.params, reference.data.params),
        "metric values in MLflow": (metric_values(uri, run), metric_values(reference_uri, reference)),
        "metrics.jsonl": (_metrics_file(folders[0]), _metrics_file(folders[1])),
        "number of data sets": (len(logged[0]), 1),
        "number of models": (len(logged[1]), 1),
        "files": (_files(folders[0]), _files(folders[1])),
        "figures": (_figures(folders[0]), _figures(folders[1])),
    }
    different = {what: pair for what, pair in pairs.items() if pair[0] != pair[1]}
    found = [f"{what}: {_describe(*pair)}" for what, pair in different.items()]
    return found + [part for name in ("best.ckpt", "last.ckpt") for part in checkpoint_differences(*folders, name)]


def checkpoint_differences(folder: Path, reference: Path, name: str) -> list[str]:
    """Return the parts of a checkpoint that differ: weights, optimiser state, schedules, counters, random states."""
    actual, expected = (_content(path / "checkpoints" / name) for path in (folder, reference))
    return [f"{name}: different {key}" for key in expected if not _equal(actual.get(key), expected[key])]


def database_errors(project: Project) -> list[str]:
    """Return the errors that SQLite's integrity check finds in the databases of a project."""
    errors = []
    for path in project.folder.glob("*.db"):
        with closing(sqlite3.connect(path)) as database:
            answer = database.execute("PRAGMA integrity_check").fetchall()
        errors += [] if answer == [("ok",)] else [f"{path.name}: {answer[0][0]}"]
    return errors


def _content(path: Path) -> dict[str, Any]:
    content = torch.load(path, weights_only=True)
    own = {key: value for key, value in content["litlab"].items() if key not in ("seconds", "metrics")}
    return {"litlab": own, **{key: content[key] for key in PARTS}}


def _equal(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def _metrics_file(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key not in TIMES} for line in lines]


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.name.endswith(".damaged"))


def _figures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}


def _describe(actual: Any, expected: Any) -> str:
    """Return a short description of how two values or two lists differ."""
    if isinstance(actual, list) and isinstance(expected, list):
        extra = [item for item in actual if actual.count(item) > expected.count(item)]
        missing = [item for item in expected if expected.count(item) > actual.count(item)]
        return f"{len(extra)} too many {extra[:1]}, {len(missing)} missing {missing[:1]}"
    return "different" if isinstance(actual, dict) else f"{actual}, not {expected}"

"""What a fit has left, compared with one that was left alone: every tensor, every point, every file."""

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


def every(uri: str) -> list[Any]:
    """All runs, the oldest first."""
    client = MlflowClient(uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(ids, order_by=["attributes.start_time ASC"], max_results=1000))


def folder_of(uri: str, run: Any) -> Path:
    """Its artifacts; those of a server are fetched."""
    local = local_path(run.info.artifact_uri)
    return local if local is not None else Path(MlflowClient(uri).download_artifacts(run.info.run_id, ""))


def points(uri: str, run: Any) -> list[tuple[str, int, float]]:
    """Key, epoch and value of each point in the store, but for the times."""
    client = MlflowClient(uri)
    keys = [key for key in run.data.metrics if key not in TIMES]
    found = [point for key in keys for point in client.get_metric_history(run.info.run_id, key)]
    return sorted((point.key, point.step, point.value) for point in found)


def differences(uri: str, run_id: str, whole_uri: str, whole_id: str) -> list[str]:
    """In what a run is another one than the whole one; empty if it is the same to the last bit."""
    run, whole = MlflowClient(uri).get_run(run_id), MlflowClient(whole_uri).get_run(whole_id)
    known: list[Any] = [
        run.inputs.dataset_inputs if run.inputs else [],
        run.outputs.model_outputs if run.outputs else [],
    ]
    folders = folder_of(uri, run), folder_of(whole_uri, whole)
    pairs: dict[str, tuple[Any, Any]] = {
        "status": (run.info.status, "FINISHED"),
        "params": (run.data.params, whole.data.params),
        "points in MLflow": (points(uri, run), points(whole_uri, whole)),
        "metrics.jsonl": (_journal(folders[0]), _journal(folders[1])),
        "number of data sets": (len(known[0]), 1),
        "number of models": (len(known[1]), 1),
        "files": (_files(folders[0]), _files(folders[1])),
        "figures": (_figures(folders[0]), _figures(folders[1])),
    }
    said = [f"{what}: {_first(one, other)}" for what, (one, other) in pairs.items() if one != other]
    return said + [part for name in ("best.ckpt", "last.ckpt") for part in other_tensors(*folders, name)]


def other_tensors(folder: Path, whole: Path, name: str) -> list[str]:
    """What is another in a checkpoint: weights, the optimiser's averages, schedules, counters, random generators."""
    one, other = (_content(part / "checkpoints" / name) for part in (folder, whole))
    return [f"{name}: other {key}" for key in other if not _same(one.get(key), other[key])]


def sound(project: Project) -> list[str]:
    """What SQLite itself finds wrong with the databases of a project."""
    said = []
    for path in project.folder.glob("*.db"):
        with closing(sqlite3.connect(path)) as database:
            answer = database.execute("PRAGMA integrity_check").fetchall()
        said += [] if answer == [("ok",)] else [f"{path.name}: {answer[0][0]}"]
    return said


def _content(path: Path) -> dict[str, Any]:
    content = torch.load(path, weights_only=True)
    own = {key: value for key, value in content["litlab"].items() if key not in ("seconds", "metrics")}
    return {"litlab": own, **{key: content[key] for key in PARTS}}


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _journal(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key not in TIMES} for line in lines]


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.name.endswith(".damaged"))


def _figures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}


def _first(one: Any, other: Any) -> str:
    """The first of two lists' differences, short; else their sizes or values."""
    if isinstance(one, list) and isinstance(other, list):
        more = [item for item in one if one.count(item) > other.count(item)]
        less = [item for item in other if other.count(item) > one.count(item)]
        return f"{len(more)} too many {more[:1]}, {len(less)} missing {less[:1]}"
    return "another" if isinstance(one, dict) else f"{one}, not {other}"

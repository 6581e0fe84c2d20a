"""Runs, checkpoints and a study of an older version can be resumed, measured, compared and continued.

`tests/fixtures/455f4d7/` was written by commit 455f4d7 with `tests/fixtures/write_old_runs.py`. Each test works on a
copy and uses commands only. A configuration key that is added with its default must not make any of these tests fail:
those that depend on it run again with such keys, see `tests/fixtures/added_keys.py`.
"""

import csv
import importlib
import json
import os
import re
import shutil
import sqlite3
import sys
import tarfile
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import jsonargparse._typehints
import pytest
import yaml
from mlflow import MlflowClient

from pipelines.config.cli import parse_config
from pipelines.config.defaults import class_defaults, config_defaults
from pipelines.config.identity import config_hash
from pipelines.config.matching import ConfigMatcher
from pipelines.tracking.store import Store
from sweeps.workers import pool

FIXTURE = Path(__file__).parent / "fixtures" / "455f4d7"
PLACEHOLDER = "/fixture"  # replaces the folder in all paths of the fixture
TEXT = ("VARCHAR", "TEXT", "CHAR", "JSON")
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())
LOSS = 1e-3  # relative: other processors round differently
EXAMPLES = 0.011  # two of 200
KEY = "added"
ADDED = {"model.added": "0.5", "model.optimizer.added": "0.25", "data.added": "4", "added": "usual"}  # to `points`
ALSO_ADDED = [False, pytest.param(True, marks=pytest.mark.slow)]
with_added_keys = pytest.mark.parametrize("added_keys", ALSO_ADDED, ids=["as it is", "keys added"], indirect=True)


@dataclass
class OldRuns:
    """A copy of the folder that the older version wrote."""

    folder: Path
    litlab: Any

    @cached_property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")

    def run(self, run_id: str) -> Any:
        return self.client.get_run(run_id)

    def children(self, parent: str) -> dict[str, Any]:
        """The runs of another one, by id, the oldest first."""
        experiment = self.run(parent).info.experiment_id
        wanted, order = f"tags.mlflow.parentRunId = '{parent}'", ["attributes.start_time ASC"]
        return {run.info.run_id: run for run in self.client.search_runs([experiment], wanted, order_by=order)}

    def compare(self, *arguments: str) -> list[dict[str, Any]]:
        """The rows that `litlab compare` shows, the best first."""
        done = self.litlab("compare", *arguments, "--format", "json")
        assert done.code == 0, done.err
        rows: list[dict[str, Any]] = json.loads(done.out)
        return rows


@pytest.fixture(scope="module")
def added_keys(request, tmp_path_factory):
    """Whether this version has keys that were added with their defaults, in this process and in those of a sweep.

    Pytest runs the tests that have them together, and these have a fork server of sweeps of their own.
    """
    if not (added := getattr(request, "param", False)):
        yield False
        return
    own = tmp_path_factory.mktemp("later")
    (own / "later_version.py").write_text("import added_keys\n\nadded_keys.install()\n")
    server = forkserver.ForkServer()
    with pytest.MonkeyPatch.context() as patch:
        for folder in (FIXTURE.parent, own):
            patch.syspath_prepend(folder)
            patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        patch.setattr(jsonargparse._typehints, "_cached_class_parsers", {})
        patch.setattr(pool, "PRELOAD", ["later_version", *pool.PRELOAD])
        importlib.import_module("added_keys").install(patch.setattr)
        for name in ("ensure_running", "connect_to_new_process", "get_inherited_fds", "set_forkserver_preload"):
            patch.setattr(forkserver, name, getattr(server, name))
        class_defaults.cache_clear()
        yield added
    server._stop()
    class_defaults.cache_clear()


@pytest.fixture
def old(tmp_path, uri, litlab, monkeypatch, added_keys):
    """A copy of the fixture: the current folder, with the tracking database that commands use by default."""
    folder = Path(uri.removeprefix("sqlite:///")).parent
    with tarfile.open(FIXTURE / "runs.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    for path in folder.glob("*.db"):
        with closing(sqlite3.connect(path)) as database:
            _put_in_place(database, str(folder))
    for path in (path for path in folder.rglob("*") if path.name in ("MLmodel", "run.json")):
        path.write_text(path.read_text().replace(PLACEHOLDER, str(folder)))
    monkeypatch.delenv("LITLAB_UNSENT")  # beside the database, as it was
    monkeypatch.chdir(folder)
    return OldRuns(folder, litlab)


def _put_in_place(database: sqlite3.Connection, folder: str) -> None:
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        columns = database.execute(f"PRAGMA table_info('{table}')").fetchall()
        for name in (name for _, name, kind, *_ in columns if kind.upper().startswith(TEXT)):
            database.execute(f'UPDATE "{table}" SET "{name}" = replace("{name}", ?, ?)', (PLACEHOLDER, folder))
    database.commit()


def close(metrics: dict[str, float]) -> dict[str, Any]:
    """Metrics as they may come out on another processor."""
    fractions = ("acc", "changed_by", "dead_units")
    return {
        key: pytest.approx(value, abs=EXAMPLES if any(word in key for word in fractions) else None, rel=LOSS)
        for key, value in metrics.items()
    }


def measured(run: Any, keys: Any) -> dict[str, float]:
    return {key: run.data.metrics.get(key) for key in keys}


@with_added_keys
@pytest.mark.parametrize("name", ["killed", "stopped"])
def test_an_interrupted_run_resumes_to_the_result_of_an_uninterrupted_one(old, name):
    """The killed run has a scheduler and dropout, the stopped one augmentation and callbacks of `modules.probes`."""
    run_id, expected = EXPECTED[name]["run"], EXPECTED[name]["metrics"]
    before = old.run(run_id)
    assert before.info.status == ("RUNNING" if name == "killed" else "KILLED")
    done = old.litlab("resume", run_id, *(["--dead"] if name == "killed" else []))
    assert done.code == 0, done.err
    epochs = [int(epoch) for epoch in re.findall(r"^epoch +(\d+)", done.out, flags=re.MULTILINE)]
    assert epochs[0] >= 3, "the training restarted"
    after = old.run(run_id)
    assert after.info.status == "FINISHED"
    assert after.data.tags["litlab.config_hash"] == EXPECTED["hashes"][run_id]
    assert measured(after, expected) == close(expected)
    rows = old.compare(name, f"{name}-whole")
    assert [(row["n"], row["params"]) for row in rows] == [(1, {}), (1, {})], "they differ in more than their names"


@pytest.mark.parametrize("verb", ["test", "validate"])
def test_an_old_checkpoint_measures_what_was_recorded(old, verb):
    for run_id, metrics in EXPECTED["metrics"].items():
        done = old.litlab(verb, run_id)
        assert done.code == 0, done.err
        start = "test/" if verb == "test" else "selected/val/"
        recorded = {key.rpartition("/")[2]: value for key, value in metrics.items() if key.startswith(start)}
        assert len(recorded) >= 2
        now = _columns(done.out)
        assert now["now"] == close(now["recorded"])
        for key, value in now["recorded"].items():
            assert value == pytest.approx(recorded[{"accuracy": "acc"}.get(key, key)], abs=1e-4)


def _columns(out: str) -> dict[str, dict[str, float]]:
    """The table of `litlab test`, which has metrics as rows or as columns, whichever are fewer."""
    head, *lines = [line.split() for line in out.splitlines()[1:] if line.strip()]
    cells = {line[0]: [float(value) for value in line[1:]] for line in lines if len(line) == len(head) + 1}
    if set(head) == {"recorded", "now"}:
        return {name: {metric: cells[metric][at] for metric in cells} for at, name in enumerate(head)}
    return {name: dict(zip(head, cells[name], strict=True)) for name in ("recorded", "now")}


def test_an_old_configuration_has_the_hash_that_was_recorded(old):
    checked = 0
    for run_id, recorded in EXPECTED["hashes"].items():
        config = Path(old.run(run_id).info.artifact_uri.removeprefix("file://")) / "config.yaml"
        if config.is_file():
            assert config_hash(yaml.safe_load(config.read_text())) == recorded
            checked += 1
    assert checked >= 20


@pytest.mark.parametrize("added_keys", [False, True], ids=["as it is", "keys added"], indirect=True)
@pytest.mark.parametrize("name", ["points", pytest.param("probed", marks=pytest.mark.slow)])
def test_compare_shows_old_runs_as_before_and_new_seeds_of_them_in_the_same_row(old, added_keys, name):
    """The callbacks of `probed` are given by the class paths that they had."""
    before = EXPECTED[name]["compared"]
    rows = old.compare(name)
    assert [{key: row[key] for key in expected} for row, expected in zip(rows, before, strict=True)] == before
    done = old.litlab(*EXPECTED[name]["command"], "--seed_everything", "7")
    assert done.code == 0, done.err
    rows = old.compare(name)
    assert len(rows) == len(before)
    assert (ADDED["added"] in old.run(done.run_id).data.params.values()) == added_keys
    (row,) = [row for row in rows if done.run_id in row["runs"]]
    (joined,) = [expected for expected in before if set(expected["runs"]) < set(row["runs"])]
    assert row["seeds"] == [*joined["seeds"], "7"]
    assert [row["params"] for row in rows if row["n"] > joined["n"]] == [joined["params"]]


def test_a_run_by_the_new_names_of_classes_has_the_hash_and_the_row_of_the_old_one(old):
    probed = EXPECTED["probed"]
    command = [
        part.replace(".Units", ".DeadUnits").replace(".Shifts", ".ShiftSensitivity") for part in probed["command"]
    ]
    assert command != probed["command"]
    done = old.litlab(*command, "--seed_everything", "7", "--trainer.max_epochs", "8")
    assert done.code == 0, done.err
    (row,) = old.compare("probed")
    assert row["runs"] == [probed["run"], done.run_id]
    assert old.run(done.run_id).data.tags["litlab.config_hash"] == EXPECTED["hashes"][probed["run"]]


@pytest.mark.slow
@pytest.mark.parametrize("added_keys", [True], indirect=True)
def test_another_value_of_an_added_key_is_another_configuration(old):
    """An added key of a model, of data, of an optimiser, of a callback, and of the command line."""
    points, probed, several, study = (EXPECTED[name] for name in ("points", "probed", "several", "study"))
    killed = EXPECTED["killed"]["run"]
    for key in ("model", "model.optimizer", "model.lr_scheduler", "data", "trainer"):
        done = old.litlab("resume", killed, "--dead", f"--{key}.{KEY}", "1")
        assert (done.code, f"{key}.{KEY}" in done.err) == (2, True), (key, done.err)
    done = old.litlab(*study["command"], "--trials", "6", f"--model.{KEY}", "0.9")
    assert (done.code, "another experiment" in done.err) == (2, True), done.err
    done = old.litlab(*points["command"], f"--data.{KEY}", "5", "--trainer.max_epochs", "1")
    assert done.code == 0, done.err
    rows = old.compare("points")
    assert next(row["n"] for row in rows if done.run_id in row["runs"]) == 1
    assert next(row["params"][f"data.{KEY}"] for row in rows if done.run_id in row["runs"]) == "5"

    def found(*arguments: str) -> bool:
        cli = parse_config("fit", several["command"][1:-2] + list(arguments))
        matcher = ConfigMatcher(config_hash(cli.resolved()), cli.resolved(), lambda: config_defaults(cli))
        return matcher.matches(Store().find(several["parent"]))

    assert found()
    assert not found(f"--model.{KEY}", "0.9")
    assert not found(f"--{KEY}", "unusual")
    cli = parse_config("fit", probed["command"][1:])
    config = cli.resolved()
    matcher = ConfigMatcher("", config, lambda: config_defaults(cli))
    assert matcher.matches(Store().find(probed["run"]))
    config["trainer"]["callbacks"][0]["init_args"][KEY] = 4
    assert not ConfigMatcher("", config, lambda: config_defaults(cli)).matches(Store().find(probed["run"]))


@pytest.mark.slow
def test_a_key_of_a_users_class_makes_another_row_only_if_its_default_changes(uri, litlab, tmp_path, monkeypatch):
    versions = {"0": "", "1": ", factor: float = 0.5", "2": ", factor: float = 0.7"}
    monkeypatch.syspath_prepend(tmp_path)
    for seed, argument in versions.items():
        text = f"from modules.mlp import MLP\n\nclass Own(MLP):\n    def __init__(self{argument}, **more):\n"
        (tmp_path / "users_own.py").write_text(f"{text}        super().__init__(**more)\n")
        for cache in (class_defaults.cache_clear, importlib.invalidate_caches):
            cache()
        sys.modules.pop("users_own", None)
        command = [*EXPECTED["points"]["command"], "--model", "users_own.Own", "--trainer.max_epochs", "1"]
        done = litlab(*command, "--seed_everything", seed)
        assert done.code == 0, done.err
    rows = json.loads(litlab("compare", "points", "--format", "json").out)
    assert sorted(row["seeds"] for row in rows) == [["0", "1"], ["2"]]
    assert {row["params"]["model.factor"] for row in rows} == {"0.5", "0.7"}


@with_added_keys
def test_a_new_run_that_repeats_an_old_one_takes_its_place_with_the_same_result(old):
    first, second = EXPECTED["points"]["seeds"]
    done = old.litlab(*EXPECTED["points"]["command"])
    (row,) = [row for row in old.compare("points") if done.run_id in row["runs"]]
    assert set(row["runs"]) == {second, done.run_id}
    assert measured(old.run(done.run_id), EXPECTED["metrics"][first]) == close(EXPECTED["metrics"][first])


@with_added_keys
def test_a_study_continues_with_its_old_trials_and_confirming_runs(old, added_keys):
    study = EXPECTED["study"]
    done = old.litlab(*study["command"], "--trials", "6")
    assert done.code == 0, done.err
    with closing(sqlite3.connect(old.folder / "optuna.db")) as database:
        states = [state for (state,) in database.execute("SELECT state FROM trials ORDER BY number")]
    assert states == [*study["states"], "COMPLETE", "PRUNED"]
    parent = old.run(study["parent"])
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["trials/complete"] + parent.data.metrics["trials/pruned"] == 6
    children = old.children(study["parent"])
    new = set(children) - set(study["runs"])
    assert len(new) == 2, "each new trial is one training, and nothing else is trained"
    assert {run for run in new if ADDED.items() <= children[run].data.params.items()} == (new if added_keys else set())
    assert sorted(run for run in children if children[run].data.tags["stage"] == "confirm") == study["confirmed"]
    assert old.litlab("sweep", "status", "rates").code == 0
    best = old.litlab("sweep", "best", "rates").out
    assert float(re.findall(r"lr: (\S+)", best)[0]) == study["best"]
    folder = Path(parent.info.artifact_uri.removeprefix("file://"))
    with (folder / "trials.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6


@with_added_keys
def test_several_seeds_that_were_stopped_continue_with_the_missing_one(old, added_keys):
    several = EXPECTED["several"]
    before = set(old.children(several["parent"]))
    done = old.litlab(*several["command"])
    assert done.code == 0, done.err
    parent, children = old.run(several["parent"]), old.children(several["parent"])
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["n"] == 3
    finished = {run for run in children if children[run].info.status == "FINISHED"}
    assert set(several["finished"]) < finished
    assert len(finished) == 3
    (new,) = set(children) - before
    assert (ADDED.items() <= children[new].data.params.items()) == added_keys
    (row,) = old.compare(several["parent"])
    assert (row["seeds"], set(row["runs"])) == (["0", "1", "2"], finished)


@with_added_keys
def test_old_runs_are_evidence_of_published_claims(old, tmp_path):
    """Networks, support vector machines, and an explanation of a network."""
    evidence = EXPECTED["evidence"]
    done = old.litlab(*evidence["command"], "--as-is", "--out", tmp_path / "page")
    assert done.code == 0, done.err
    # Functions and support vector machines draw data for each seed, so old ones count for seed 0.
    assert f"18 runs, {evidence['found']} of them are already finished" in done.out
    page = (tmp_path / "page" / "RESULTS.md").read_text()
    assert re.search(r"a block hides the object .* 10\.0 \[10\.0, 10\.0\] \(n = 2\); at least 8 \| reproduced", page)
    assert all(f"| {job} | 1 |" in page for job in ("functions-linear", "svm-linear-1", "svm-rbf-1"))


def test_an_old_run_is_explained_as_before_and_an_explanation_is_no_run_of_its_own(old, tmp_path):
    probed = EXPECTED["probed"]
    done = old.litlab(*probed["explain"], tmp_path / "pictures")
    assert done.code == 0, done.err
    before, now = old.children(probed["run"]).values()
    assert before.info.run_id == probed["explanation"]
    assert before.data.tags["litlab.look"] in now.data.tags.values(), "the same question, perhaps under another tag"
    assert now.data.params == before.data.params
    (row,) = old.compare("probed")
    assert row["runs"] == [probed["run"]]


def test_an_old_run_is_registered_and_reported(old, tmp_path):
    run_id, page = EXPECTED["points"]["seeds"][0], tmp_path / "report.html"
    done = old.litlab("register", run_id, "circles", "--alias", "champion")
    assert done.code == 0, done.err
    version = old.client.get_model_version_by_alias("circles", "champion")
    assert version.run_id == run_id
    assert version.tags["litlab.config_hash"] == EXPECTED["hashes"][run_id]
    done = old.litlab("report", "points", "--out", page)
    assert done.code == 0, done.err
    assert all(run in page.read_text() for run in EXPECTED["points"]["seeds"])


@with_added_keys
def test_a_copy_of_an_old_configuration_makes_a_run_of_the_same_row(old):
    run = old.run(EXPECTED["points"]["seeds"][0])
    config = Path(run.info.artifact_uri.removeprefix("file://")) / "config.yaml"
    shutil.copy(config, "old.yaml")
    done = old.litlab("fit", "-c", "old.yaml", "--seed_everything", "8")
    assert done.code == 0, done.err
    assert [row["n"] for row in old.compare("points") if done.run_id in row["runs"]] == [3]

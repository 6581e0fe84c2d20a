"""A sweep on a Ray cluster of this machine: the same trials as without Ray, and nothing is left."""

import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml

pytest.importorskip("ray")

from sweeps.search.trial_state import params_key

pytestmark = pytest.mark.services

PROGRAM = "from litlab.cli import console; console()"
MARK = "LITLAB_TEST_CLUSTER"  # environment variable of all processes of the cluster
SPACE = {
    "experiment": "digits-mlp",
    "metric": "val/acc",
    "sampler": "random",
    "pruner": "none",
    "trials": 3,
    "confirm": 0,
    "set": {"trainer.max_epochs": 2},
    "space": {"model.dropout": {"low": 0.0, "high": 0.5}},
}


def marked_processes() -> list[str]:
    """Return the command lines of the processes that have the variable, with the id of this process as its value."""
    mark, found = f"{MARK}={os.getpid()}\0".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def test_a_cluster_of_this_machine_finds_what_a_sweep_without_it_finds(tmp_path: Path, uri: str) -> None:
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), MARK: str(os.getpid())}
    found = {}
    for name, options in {"alone": ["--workers", "2"], "cluster": ["--cluster", "local"]}.items():
        command = [sys.executable, "-c", PROGRAM, "sweep", "-c", "space.yaml", "--study", name, *options]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        storage = f"{uri.rpartition('/')[0]}/optuna.db"
        trials = optuna.load_study(study_name=name, storage=storage).trials
        found[name] = {params_key(trial.params): (trial.state.name, trial.value) for trial in trials}
    assert found["alone"] == found["cluster"]
    assert [state for state, _ in found["cluster"].values()] == ["COMPLETE"] * 3
    assert not marked_processes(), "the cluster has left processes"

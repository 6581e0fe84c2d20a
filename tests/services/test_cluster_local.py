"""A cluster of this machine: the same trials as without Ray, also from Python, and nothing is left."""

import json
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
SCRIPT = """
import json, os, signal
import litlab
handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
study = litlab.sweep("space.yaml", name="python", cluster="local", cpus=0.5, workers=2)
seeds = litlab.fit("digits-mlp", overrides={"trainer.max_epochs": 1}, seeds=2, cluster="local")
assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
print(json.dumps([study.n_finished, study.run.command, seeds.command, sorted(run.seed for run in seeds.children)]))
import ray
ray.init(address="local", include_dashboard=False, num_cpus=1, log_to_driver=False)
try:
    litlab.fit("digits-mlp", seeds=2, cluster="local")
except litlab.UserError as error:
    print(error)
ray.shutdown()
"""
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


def test_python_sweeps_and_trains_seeds_on_a_cluster_twice_in_one_process(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), MARK: str(os.getpid())}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    n_finished, swept, trained, seeds = json.loads(done.stdout.splitlines()[-2])
    assert (n_finished, seeds) == (3, ["0", "1"])
    assert "--workers 2 --cluster local --cpus 0.5" in swept
    assert trained.endswith("--seeds 2 --cluster local")
    assert done.stdout.splitlines()[-1].startswith("--cluster local: this process is connected to a Ray cluster")
    assert not marked_processes(), "the cluster has left processes"

"""A real `litlab sweep` on a cluster, and what must be true of its study at the end, whatever was killed."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import yaml
from mlflow import MlflowClient

from sweeps.search.trial_state import INTERRUPTED, RUNS, counted_trials, params_key, trial_params
from tests.ray_cluster import RayCluster, environment_with_litlab

PROGRAM = "from litlab.cli import console; console()"
TRIALS, EPOCHS = 5, 30
SPACE = {
    "experiment": "digits-mlp",
    "metric": "val/acc",
    "sampler": "random",
    "pruner": "none",
    "trials": TRIALS,
    "confirm": 0,
    "set": {"trainer.max_epochs": EPOCHS},
    "space": {"model.dropout": {"low": 0.0, "high": 0.5}},
}


class Study:
    """A study with two trainings in parallel, and its runs on the tracking server.

    Args:
        folder: Is created, and has its name.
        tracking: URI of the server.
        storage: URL of Optuna's storage; "" for a file in the folder.
        space: The space.
    """

    def __init__(self, folder: Path, tracking: str, storage: str = "", space: dict[str, Any] = SPACE) -> None:
        folder.mkdir(parents=True)
        self.folder, self.name, self.tracking = folder, folder.name, tracking
        self.storage = storage or f"sqlite:///{folder}/optuna.db"
        (folder / "space.yaml").write_text(yaml.safe_dump(space))
        self._is_grid = space["sampler"] == "grid"
        self.client = MlflowClient(tracking)

    def start(self, cluster: RayCluster | None, *arguments: str, space: bool = True) -> "subprocess.Popen[str]":
        """Start `litlab sweep` on the cluster or without one, or another command, with its output in files."""
        own = ["sweep", "-c", "space.yaml", "--study", self.name, "--storage", self.storage]
        command = [sys.executable, "-c", PROGRAM, *(own if space else []), *arguments]
        command += [] if cluster is None else ["--cluster", cluster.address]
        common = environment_with_litlab() if cluster is None else cluster.environment
        environment = {**common, "MLFLOW_TRACKING_URI": self.tracking, "PYTHONUNBUFFERED": "1"}
        with (self.folder / "out").open("a") as out, (self.folder / "err").open("a") as err:
            return subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=out, stderr=err, text=True, start_new_session=True
            )

    @property
    def output(self) -> str:
        return (self.folder / "out").read_text() + (self.folder / "err").read_text()

    @property
    def errors(self) -> list[str]:
        return (self.folder / "err").read_text().splitlines()

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        try:
            return optuna.load_study(study_name=self.name, storage=self.storage).trials
        except KeyError:
            return []

    @property
    def counted(self) -> list[optuna.trial.FrozenTrial]:
        return counted_trials(self.trials, is_grid=self._is_grid)

    def runs(self, status: str = "") -> list[Any]:
        experiment = self.client.get_experiment_by_name(f"{self.name}-sweep")
        found = self.client.search_runs([experiment.experiment_id]) if experiment else []
        children = [run for run in found if "mlflow.parentRunId" in run.data.tags]
        return [run for run in children if status in ("", run.info.status)]

    def check(self, states: dict[str, int], *, lost: int = 0, trials: int = TRIALS) -> None:
        """Check that the study is complete, with each trial counted once, and that nothing is left active."""
        assert Counter(trial.state.name for trial in self.counted) == states, self.output
        assert len(self.counted) == trials
        interrupted = [trial for trial in self.trials if INTERRUPTED in trial.user_attrs]
        assert len(interrupted) >= lost
        times = Counter(params_key(trial_params(trial)) for trial in self.trials)
        again = Counter(params_key(trial_params(trial)) for trial in interrupted)
        assert times == {key: 1 + again[key] for key in times}, "each is queued again once for each loss"
        assert not self.runs("RUNNING")
        finished = {run.info.run_id: run.data.metrics for run in self.runs("FINISHED")}
        for trial in self.counted:
            if trial.state.name == "COMPLETE":  # by its own run, or by one that had finished before it was queued again
                (run_id,) = trial.user_attrs[RUNS]
                assert finished.pop(run_id)["selected/val/acc"] == trial.value, "each run is the result of one trial"

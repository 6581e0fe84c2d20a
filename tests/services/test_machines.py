"""A study moves from one machine to another; they share only a PostgreSQL and an MLflow server."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import optuna
import pytest
import yaml
from mlflow import MlflowClient

from sweeps.search.trial_state import INTERRUPTED, counted_trials, params_key, trial_params

pytestmark = pytest.mark.services

SPACE = {
    "experiment": "digits-mlp",
    "metric": "val/acc",
    "sampler": "random",
    "set": {"trainer.enable_progress_bar": False},
    "space": {"model.dropout": {"low": 0.0, "high": 0.5}},
}


class StoredStudy:
    """Trials and runs of a study."""

    def __init__(self, storage: Any, tracking: str, name: str) -> None:
        self._storage, self.client, self._name = storage, MlflowClient(tracking), name

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        try:
            return optuna.load_study(study_name=self._name, storage=self._storage).trials
        except KeyError:
            return []

    @property
    def counted(self) -> list[optuna.trial.FrozenTrial]:
        return counted_trials(self.trials, is_grid=False)

    def runs(self, stage: str | None = "search") -> list[Any]:
        """Return the runs of a stage, "search" or "confirm"; None for the summary run."""
        experiment = self.client.get_experiment_by_name(f"{self._name}-sweep")
        every = self.client.search_runs([experiment.experiment_id], max_results=1000) if experiment else []
        return [run for run in every if run.data.tags.get("stage") == stage]

    def files(self, run: Any, folder: str = "") -> set[str]:
        return {file.path for file in self.client.list_artifacts(run.info.run_id, folder)}


@pytest.fixture
def study(machine: Callable[..., Any], server: Any, tracking: str, opened: Callable[[str], Any]) -> Callable[..., Any]:
    """Return a function that creates a study and two machines, with the password in the environment and in a file."""

    def make(name: str, **settings: Any) -> tuple[Any, Any, StoredStudy, list[str]]:
        one, two = machine("one", PGPASSWORD=server.password), machine("two")
        entry = two.folder / "home" / ".pgpass"
        entry.write_text(f"127.0.0.1:{server.port}:*:litlab:{server.password}\n")
        entry.chmod(0o600)
        for each in (one, two):
            (each.folder / "work" / f"{name}.yaml").write_text(yaml.safe_dump({**SPACE, **settings}))
        stored = StoredStudy(opened(server.create(name)), tracking, name)
        return one, two, stored, ["sweep", "-c", f"{name}.yaml", "--storage", server.address(name)]

    return make


def test_the_study_of_a_machine_is_refused_to_another_until_it_dies_and_then_goes_on_there(
    study: Callable[..., Any], until: Callable[..., Any]
) -> None:
    epochs = 100  # trials must still train when the other machine has run two commands
    one, two, stored, command = study("killed", trials=6, confirm=1, set={"trainer.max_epochs": epochs})
    one.litlab(*command, "--workers", "2")
    until(lambda: len([trial for trial in stored.trials if trial.intermediate_values]) >= 2)
    assert two.litlab(*command).wait(timeout=120) == 2
    assert re.search(r"study killed is being run by process \d+ of \S+ on one since", " ".join(two.err.split()))
    assert two.litlab("sweep", "status", "killed", *command[3:]).wait(timeout=120) == 0, two.err
    assert re.search(r"run by process \d+ of \S+ on one since", two.out)
    one.power_off()
    lost = [trial for trial in stored.trials if trial.state.name == "RUNNING"]
    assert lost
    assert two.litlab(*command).wait(timeout=500) == 0, two.err

    assert len(stored.counted) == 6
    assert {trial.state.name for trial in stored.counted} == {"COMPLETE"}
    assert {trial.number for trial in stored.trials if INTERRUPTED in trial.user_attrs} == {t.number for t in lost}
    times = Counter(params_key(trial_params(trial)) for trial in stored.trials)
    assert times == Counter({**dict.fromkeys(times, 1), **{params_key(trial.params): 2 for trial in lost}})
    finished = [run for run in stored.runs() if run.info.status == "FINISHED"]
    assert sorted(int(run.data.tags["trial"]) for run in finished) == [trial.number for trial in stored.counted]
    assert not [run for run in finished if "litlab.reason" in run.data.tags], "finished runs were taken for dead"
    orphans = [run for run in stored.runs() if int(run.data.tags["trial"]) in {trial.number for trial in lost}]
    assert {(run.info.status, run.data.tags["litlab.reason"]) for run in orphans} == {("KILLED", "its process died")}
    (parent,) = stored.runs(None)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["trials/complete"] == 6
    assert parent.data.metrics["confirmed"] == 1
    for run in finished:
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert {"config.yaml", "metrics.jsonl"} <= stored.files(run)
    with_checkpoints = [run.info.run_id for run in finished if stored.files(run, "checkpoints")]
    assert with_checkpoints == [parent.data.tags["best.run"]]
    assert "checkpoints/best.ckpt" in stored.files(parent, "checkpoints")
    assert not list((two.folder / "tmp").glob("litlab-*")), "the server does not have all files"
    assert "Traceback" not in two.err
    assert "View run" not in two.out, "MLflow's own message"

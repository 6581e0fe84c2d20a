"""One study on two machines that share only a PostgreSQL and an MLflow server."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import optuna
import pytest
import yaml
from mlflow import MlflowClient

from sweeps.search.storage import Storage
from sweeps.search.trial_state import CONTROLLER, INTERRUPTED, counted_trials, params_key, trial_params

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

    def __init__(self, storage: Storage, tracking: str, name: str) -> None:
        self._storage, self.client, self._name = storage, MlflowClient(tracking), name

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        try:
            return optuna.load_study(study_name=self._name, storage=self._storage.optuna).trials
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
def study(
    machine: Callable[..., Any], server: Any, tracking: str, opened: Callable[[str], Storage]
) -> Callable[..., Any]:
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


def test_two_machines_share_the_trials_of_a_study_exactly(study: Callable[..., Any]) -> None:
    one, two, stored, command = study("shared", trials=6, confirm=1, set={"trainer.max_epochs": 3})
    both = [each.litlab(*command) for each in (one, two)]
    codes = [process.wait(timeout=300) for process in both]

    assert codes == [0, 0], one.err + two.err
    assert [trial.number for trial in stored.trials] == list(range(6))
    assert {trial.state.name for trial in stored.trials} == {"COMPLETE"}
    assert {trial.user_attrs[CONTROLLER].split(":")[0] for trial in stored.trials} == {"one", "two"}
    runs = stored.runs()
    assert sorted(int(run.data.tags["trial"]) for run in runs) == list(range(6))
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["machine.host"] for run in runs} == {"one", "two"}
    (parent,) = stored.runs(None)
    assert parent.info.status == "FINISHED"
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {parent.info.run_id}
    for run in runs:
        assert {"config.yaml", "metrics.jsonl"} <= stored.files(run)
    with_checkpoints = [run for run in runs if stored.files(run, "checkpoints")]
    assert [run.info.run_id for run in with_checkpoints] == [parent.data.tags["best.run"]]
    assert "checkpoints/best.ckpt" in stored.files(parent, "checkpoints")
    confirmed = stored.runs("confirm")
    assert len(confirmed) == len({run.data.tags["configuration"] for run in confirmed}) in (1, 2), (
        "a configuration was confirmed twice"
    )
    assert parent.data.metrics["confirmed"] == 1
    assert parent.data.metrics["trials/complete"] == 6
    for each in (one, two):
        assert not list((each.folder / "tmp").glob("litlab-*")), "the server does not have all files"
        assert "Traceback" not in each.err
        assert "View run" not in each.out, "MLflow's own message"


def test_the_trials_of_a_machine_that_dies_are_repeated_once_by_the_other(
    study: Callable[..., Any], until: Callable[..., Any]
) -> None:
    one, two, stored, command = study("killed", trials=8, confirm=0, set={"trainer.max_epochs": 40})
    one.litlab(*command, "--workers", "2")
    other = two.litlab(*command)
    until(lambda: {run.data.tags["machine.host"] for run in stored.runs()} == {"one", "two"})
    one.power_off()
    died = time.monotonic()
    lost = [
        trial
        for trial in stored.trials
        if trial.state.name == "RUNNING" and trial.user_attrs[CONTROLLER].startswith("one:")
    ]
    assert lost
    until(lambda: all(stored.trials[trial.number].state.is_finished() for trial in lost))
    assert time.monotonic() - died < 100
    orphans = [run for run in stored.runs() if int(run.data.tags["trial"]) in {trial.number for trial in lost}]
    until(lambda: all(stored.client.get_run(run.info.run_id).info.status == "KILLED" for run in orphans), 20)
    assert other.wait(timeout=300) == 0, two.err

    assert len(stored.counted) == 8
    assert len(stored.trials) == 8 + len(lost)
    assert {trial.state.name for trial in stored.counted} == {"COMPLETE"}
    times = Counter(params_key(trial_params(trial)) for trial in stored.trials)
    assert times == Counter({**dict.fromkeys(times, 1), **{params_key(trial.params): 2 for trial in lost}})
    for trial in stored.trials:
        assert (INTERRUPTED in trial.user_attrs) == (trial.number in {each.number for each in lost})
    finished = [run for run in stored.runs() if run.info.status == "FINISHED"]
    assert sorted(int(run.data.tags["trial"]) for run in finished) == [trial.number for trial in stored.counted]
    assert not [run for run in finished if "litlab.reason" in run.data.tags], "finished runs were taken for dead"
    ended = [stored.client.get_run(run.info.run_id).data.tags["litlab.reason"] for run in orphans]
    assert set(ended) == {"its process died"}
    (parent,) = stored.runs(None)
    assert parent.info.status == "FINISHED"

"""A model with a given validation accuracy, whose `mood` selects how its training fails; the results of a study."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from mlflow import MlflowClient

MOODY = """
import os, signal, sys, time
import torch
from lightning.pytorch import LightningModule

class Moody(LightningModule):
    monitor, mode = "val/acc", "max"

    def __init__(self, mood: str = "fine", score: float = 0.5, slow: float = 0.0, num_classes: int = 10):
        super().__init__()
        if not 0 <= score <= 1:
            raise ValueError(f"score must be from 0 to 1, got {score}")
        self.mood, self.score, self.slow = mood, score, slow
        self.layer = torch.nn.Linear(784, num_classes)

    def forward(self, x):
        return self.layer(x.flatten(1))

    def training_step(self, batch, i):
        time.sleep(self.slow)
        if self.current_epoch and not i:
            if self.mood == "raises":
                raise RuntimeError("out of luck")
            if self.mood == "exits":
                sys.exit(3)
            if self.mood == "killed":  # as the system does when memory runs out
                os.kill(os.getpid(), signal.SIGKILL)
            if self.mood == "hangs":
                time.sleep(1000)
            if self.mood == "unlucky" and not os.path.exists("lucky") and torch.initial_seed() == int(self.slow * 1e6):
                raise RuntimeError("out of luck until mended")
            if self.mood == "second raises" and self.global_rank:
                raise RuntimeError("out of luck on the second device")
        loss = torch.nn.functional.cross_entropy(self(batch[0]), batch[1])
        return loss * float("nan") if self.mood == "nan" else loss

    def validation_step(self, batch, i):
        self.log("val/acc", self.score, sync_dist=True)

    def test_step(self, batch, i):
        if self.mood == "test raises" and not os.path.exists("lucky"):
            raise RuntimeError("out of luck in the test")
        self.log("test/acc", self.score)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
"""
EXPERIMENT = {
    "data": {"class_path": "datamodules.digits.Digits", "init_args": {"batch_size": 300}},
    "model": {"class_path": "moody.Moody"},
    "trainer": {"max_epochs": 2, "enable_progress_bar": False},
}


@pytest.fixture
def moody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a space of the moody model to `study.yaml`; return its path."""
    (tmp_path / "moody.py").write_text(MOODY)
    (tmp_path / "moody.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    monkeypatch.syspath_prepend(tmp_path)

    def write(space: dict[str, Any], **settings: Any) -> Path:
        usual = {"experiment": str(tmp_path / "moody.yaml"), "sampler": "grid", "confirm": 0}
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({**usual, "space": space, **settings}, sort_keys=False))
        return path

    return write


@pytest.fixture(autouse=True)
def ready(tables: None) -> None:
    """Start every sweep with a database that has its tables."""


class StudyResults:
    """The trials and runs of a study."""

    def __init__(self, uri: str, name: str = "study", storage: str | None = None) -> None:
        self.client, self.uri = MlflowClient(uri), uri
        folder = Path(uri.removeprefix("sqlite:///")).parent
        self._storage, self._name = storage or f"sqlite:///{folder / 'optuna.db'}", name

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """All trials, including interrupted ones; empty before the parent run exists, which follows the study."""
        if not self.runs:
            return []
        if "://" in self._storage:
            return optuna.load_study(study_name=self._name, storage=self._storage).trials
        backend = optuna.storages.journal.JournalFileBackend(self._storage)
        return optuna.load_study(study_name=self._name, storage=optuna.storages.JournalStorage(backend)).trials

    @property
    def counted(self) -> list[optuna.trial.FrozenTrial]:
        """The trials that have ended and were not interrupted."""
        return [trial for trial in self.trials if trial.state.is_finished() and "interrupted" not in trial.user_attrs]

    @property
    def states(self) -> list[str]:
        return [trial.state.name for trial in self.counted]

    @property
    def runs(self) -> list[Any]:
        """The parent run and its children, the oldest first."""
        experiment = self.client.get_experiment_by_name(f"{self._name}-sweep")
        if experiment is None:
            return []
        return list(self.client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))

    @property
    def parent(self) -> Any:
        (parent,) = [run for run in self.runs if "mlflow.parentRunId" not in run.data.tags]
        return parent

    def children(self, stage: str = "search") -> list[Any]:
        """Return the runs of the search or of the confirmation."""
        return [run for run in self.runs if run.data.tags.get("stage") == stage]

    def files(self, run: Any) -> set[str]:
        """Return the artifacts of a run."""
        folder = Path(run.info.artifact_uri.removeprefix("file://"))
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def results_of() -> Callable[..., StudyResults]:
    """Get the results of another study from its tracking URI, name and storage."""
    return StudyResults


@pytest.fixture
def results(uri: str) -> StudyResults:
    """The results of the study `study` of this test."""
    return StudyResults(uri)

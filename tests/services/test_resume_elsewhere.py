"""A fit on a tracking server: power cut, pre-emption, and resuming on another machine."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

pytestmark = pytest.mark.services

EPOCHS = 300  # metrics are sent every five seconds, so the fit must last longer
FIT = [
    "fit",
    "digits-mlp",
    "--model.dropout",
    "0.3",
    "--trainer.max_epochs",
    str(EPOCHS),
    "--trainer.enable_progress_bar=false",
]


def test_a_fit_resumes_after_a_power_cut_and_then_on_another_machine(
    machine: Callable[..., Any], tracking: str, litlab: Callable[..., Any], uri: str, until: Callable[..., Any]
) -> None:
    client = MlflowClient(tracking)

    def run() -> Any:
        experiment = client.get_experiment_by_name("digits-mlp")
        found = client.search_runs([experiment.experiment_id]) if experiment else []
        return found[0] if found else None

    def epochs() -> int:
        return len(client.get_metric_history(run().info.run_id, "val/loss")) if run() else 0

    one, two = machine("one"), machine("two")
    one.litlab(*FIT)
    until(lambda: epochs() > 2)
    one.power_off()
    before, run_id = epochs(), run().info.run_id
    assert run().info.status == "RUNNING"
    assert not client.list_artifacts(run_id), "its files should still be on the machine"

    resumed = one.litlab("resume", run_id)
    until(lambda: epochs() > before)
    (first,) = Path(f"/proc/{resumed.pid}/task/{resumed.pid}/children").read_text().split()
    os.kill(int(first), signal.SIGTERM)
    assert resumed.wait(timeout=120) == 143
    assert "Resuming run" in one.err
    assert run().info.status == "KILLED"
    assert f"litlab resume {run_id}" in one.err
    assert not list((one.folder / "tmp").glob("litlab-*")), "the server does not have all files"

    assert two.litlab("resume", run_id).wait(timeout=300) == 0, two.err
    assert "Resuming run" in two.err
    assert run().info.status == "FINISHED"
    steps = [point.step for point in client.get_metric_history(run_id, "val/loss")]
    assert sorted(steps) == list(range(EPOCHS))
    uninterrupted = litlab(*FIT)
    expected = MlflowClient(uri).get_run(uninterrupted.run_id).data.metrics
    for metric in ("val/loss", "train/loss", "test/loss", "selected_epoch"):
        assert run().data.metrics[metric] == expected[metric], metric


def test_a_fit_with_shared_files_resumes_on_any_machine(
    machine: Callable[..., Any], tracking: str, tmp_path: Path, until: Callable[..., Any]
) -> None:
    client, name = MlflowClient(tracking), "shared-files"
    experiment = client.create_experiment(name, artifact_location=(tmp_path / "shared").as_uri())
    one, two = machine("one"), machine("two")
    one.litlab(*FIT, "--name", name)
    (run,) = until(lambda: client.search_runs([experiment], "metrics.`val/loss` > 0"))
    one.power_off()

    assert two.litlab("resume", run.info.run_id, "--dead").wait(timeout=300) == 0, two.err
    assert "Resuming run" in two.err
    assert "after epoch" in two.err
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "val/loss")]
    assert sorted(steps) == list(range(EPOCHS))

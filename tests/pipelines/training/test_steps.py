"""Checkpoints within epochs: a training resumes in the middle of an epoch, bit for bit on a CPU."""

import json
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch
from mlflow import MlflowClient

CONFIG = """
data: {class_path: steps.Data}
model: {class_path: steps.Net}
trainer: {max_epochs: 3, accelerator: cpu, num_sanity_val_steps: 0}
"""


@pytest.fixture
def fit(litlab, tmp_path, monkeypatch, strangers):
    """Return a function that trains or resumes; it returns the outcome, the run and its folder."""
    (tmp_path / "steps.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)

    def run(name, *args, verb="fit"):
        uri = f"sqlite:///{tmp_path}/{name}.db"
        arguments = ["fit", "steps.yaml", *args]
        if verb == "resume":
            arguments = ["resume", _only_run(uri).info.run_id, *args]
        outcome = litlab(*arguments, "--tracking_uri", uri)
        found = _only_run(uri)
        return outcome, found, Path(urlparse(found.info.artifact_uri).path)

    return run


def _only_run(uri):
    client = MlflowClient(uri)
    (run,) = client.search_runs([item.experiment_id for item in client.search_experiments()])
    return run


def _weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def _entries(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("timestamp", "fit_seconds")} for line in lines]


@pytest.mark.parametrize("step", [9, 16])  # in the first and in the second epoch of 12 steps
@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--data.seeded", "true"],
        ["--data.workers", "2"],
        ["--trainer.val_check_interval", "5"],
        ["--trainer.val_check_interval", "7"],  # validated after the step of a checkpoint
        ["--trainer.accumulate_grad_batches", "2", "--checkpoint_every", "2"],
    ],
    ids=["plain", "seeded loader", "workers", "validation within epochs", "validation due", "accumulation"],
)
def test_a_training_that_failed_in_an_epoch_resumes_there_bit_for_bit(fit, args, step):
    args = ["--checkpoint_every", "7", *args]
    _, _, whole = fit("whole", *args)
    Path("plan").write_text(f"{step // (2 if 'accumulate' in ' '.join(args) else 1)} error")
    outcome, run, _ = fit("parts", *args)
    assert outcome.code == 1
    outcome, run, parts = fit("parts", verb="resume")
    assert outcome.code == 0, outcome.err
    assert run.info.status == "FINISHED"
    weights = _weights(parts)
    assert all(torch.equal(value, weights[key]) for key, value in _weights(whole).items())
    assert _entries(parts) == _entries(whole)
    assert "from step" in outcome.err

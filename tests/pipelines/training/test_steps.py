"""Checkpoints within epochs: a training resumes in the middle of an epoch, bit for bit on a CPU."""

import json
import os
import signal as signals
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch
from mlflow import MlflowClient

DYING = """
import os, signal
from lightning.pytorch import Callback

class Dying(Callback):
    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == 27 and not os.path.exists(__file__ + ".died"):
            open(__file__ + ".died", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
"""
SLOW = pytest.mark.slow
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


@pytest.mark.parametrize("step", [pytest.param(9, marks=SLOW), 16])  # in the first and in the second epoch of 12 steps
@pytest.mark.parametrize(
    "args",
    [
        [],
        pytest.param(["--data.seeded", "true"], marks=SLOW),
        pytest.param(["--data.workers", "2"], marks=SLOW),
        pytest.param(["--trainer.val_check_interval", "5"], marks=SLOW),
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


@pytest.mark.parametrize(
    "stop", [*(pytest.param(f"16 {how}", marks=SLOW) for how in ("error", "SIGTERM")), "26 SIGTERM"]
)
@pytest.mark.parametrize(
    "args",
    [
        pytest.param([], marks=SLOW),
        ["--model.interval", "step", "--model.monitor", "by_step"],
        pytest.param(["--trainer.val_check_interval", "4"], marks=SLOW),
        pytest.param(["--trainer.accumulate_grad_batches", "2"], marks=SLOW),
    ],
    ids=["epochs", "steps", "validation within epochs", "accumulation"],
)
def test_schedules_on_plateaus_and_values_of_steps_continue_after_a_stop_in_an_epoch(fit, args, stop):
    model = ["--model", "steps.Plateau", *args, "--trainer.max_epochs", "5"]
    model += ["--checkpoint_every", "5", "--trainer.log_every_n_steps", "1", "--trainer.callbacks+=LearningRateMonitor"]
    _, _, whole = fit("whole", *model)
    Path("plan").write_text(stop)
    assert fit("parts", *model)[0].code in (1, 143)
    outcome, _, parts = fit("parts", verb="resume")
    assert "from step" in outcome.err
    checkpoints = [torch.load(path / "checkpoints/last.ckpt", weights_only=True) for path in (whole, parts)]
    assert checkpoints[0]["lr_schedulers"] == checkpoints[1]["lr_schedulers"]
    assert all(
        torch.equal(value, checkpoints[1]["state_dict"][key]) for key, value in checkpoints[0]["state_dict"].items()
    )
    assert _points(parts) == _points(whole)


def _points(folder):
    """Return each value of each metric with its x axis, sorted; a resumed run may have them in another order."""
    points = []
    for line in _entries(folder):
        x = (line.pop("epoch"), line.pop("step", -1))
        points += [(key, x, value) for key, value in line.pop("values", line).items()]
    return sorted(point for point in points if point[0] != "fit_seconds")


def test_a_checkpoint_has_what_the_hooks_of_the_step_did(fit):
    args = ["--model", "loops.Moves", "--checkpoint_every", "2", "--trainer.callbacks+=steps.Dies"]
    _, _, whole = fit("whole", *args)
    Path("plan").write_text("9 error")
    assert fit("parts", *args)[0].code == 1
    _, _, parts = fit("parts", verb="resume")
    assert all(torch.equal(value, _weights(parts)[key]) for key, value in _weights(whole).items())


@pytest.mark.parametrize("signal", ["SIGTERM", pytest.param("SIGUSR1", marks=SLOW)])
def test_a_signal_saves_a_checkpoint_after_the_step_and_ends_the_run_as_killed(fit, signal):
    _, _, whole = fit("whole")
    Path("plan").write_text(f"16 {signal}")
    outcome, run, _ = fit("parts")
    assert outcome.code == 128 + getattr(signals, signal)
    assert run.info.status == "KILLED"
    outcome, run, parts = fit("parts", verb="resume")
    assert "from step 17 of epoch 1" in outcome.err
    assert run.info.status == "FINISHED"
    assert all(torch.equal(value, _weights(parts)[key]) for key, value in _weights(whole).items())


def test_after_kill_9_litlabs_own_module_and_data_resume_within_an_epoch(
    tmp_path, start_python, litlab, uri, monkeypatch
):
    args = ["fit", "digits-mlp", "--trainer.max_epochs", "2", "--model.dropout", "0.3", "--checkpoint_every", "8"]
    assert litlab(*args, "--tracking_uri", f"sqlite:///{tmp_path}/whole.db").code == 0
    whole = Path(urlparse(_only_run(f"sqlite:///{tmp_path}/whole.db").info.artifact_uri).path)
    (tmp_path / "dying.py").write_text(DYING)
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from pipelines.cli import main; main(sys.argv[1:])"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    process = start_python(program, *args, "--trainer.callbacks+=dying.Dying", env=environment)
    assert process.wait(timeout=120) == -signals.SIGKILL
    run = _only_run(uri)
    monkeypatch.syspath_prepend(str(tmp_path))
    outcome = litlab("resume", run.info.run_id)
    assert outcome.code == 0, outcome.err
    assert "from step 24 of epoch 0" in outcome.err
    parts = Path(urlparse(run.info.artifact_uri).path)
    assert all(torch.equal(value, _weights(parts)[key]) for key, value in _weights(whole).items())
    assert _entries(parts) == _entries(whole)


def test_a_stream_cannot_resume_exactly_and_the_run_says_so_at_its_start(fit):
    args = ["--data", "steps.Endless", "--trainer.max_epochs", "-1", "--trainer.max_steps", "20"]
    outcome, _, _ = fit("stream", *args, "--checkpoint_every", "5")
    assert "cannot resume exactly within an epoch: the training data are a stream" in outcome.err
    Path("plan").write_text("13 error")
    assert fit("parts", *args, "--checkpoint_every", "5")[0].code == 1
    outcome, run, folder = fit("parts", verb="resume")
    assert "from step 10 of epoch 0" in outcome.err
    assert run.info.status == "FINISHED"
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 20


def test_the_checkpoints_of_the_users_own_callback_are_resumed_from(fit):
    callback = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps", "5"]
    _, _, whole = fit("whole", *callback)
    Path("plan").write_text("8 error")
    assert fit("parts", *callback)[0].code == 1
    outcome, _, parts = fit("parts", verb="resume")
    assert "from step 5 of epoch 0" in outcome.err
    assert all(torch.equal(value, _weights(parts)[key]) for key, value in _weights(whole).items())


STOPPING_BLOCK = """
import os, signal
from lightning.pytorch import Callback

class Stopping(Callback):
    once_per_block = True

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 3 and not os.path.exists(__file__ + ".stopped"):
            open(__file__ + ".stopped", "w").close()
            os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_training_in_blocks_of_steps_resumes_between_two_blocks_bit_for_bit(litlab, tmp_path, monkeypatch):
    (tmp_path / "stopping_block.py").write_text(STOPPING_BLOCK)
    monkeypatch.syspath_prepend(tmp_path)
    graph = {"class_path": "modules.speed.CudaGraph", "init_args": {"steps": 4}}
    keys = ["digits-mlp", "--data.n_train", "225", "--trainer.max_epochs", "2"]
    weights = []
    for name, stopping in (("whole", []), ("parts", ["stopping_block.Stopping"])):
        uri = f"sqlite:///{tmp_path}/{name}.db"
        callbacks = json.dumps([graph, *({"class_path": path} for path in stopping)])
        outcome = litlab("fit", *keys, "--trainer.callbacks", callbacks, "--tracking_uri", uri)
        if stopping:
            assert outcome.code == 143, outcome.err
            outcome = litlab("resume", _only_run(uri).info.run_id, "--tracking_uri", uri)
            assert "from step 3 of epoch 1" in outcome.err
        assert outcome.code == 0, outcome.err
        weights.append(_weights(Path(urlparse(_only_run(uri).info.artifact_uri).path)))
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_a_checkpoint_every_some_steps_is_refused_if_steps_are_made_in_blocks(litlab):
    keys = ["--trainer.callbacks+=modules.speed.CudaGraph", "--trainer.callbacks.steps=4", "--checkpoint_every=100"]
    outcome = litlab("fit", "digits-mlp", *keys)
    assert outcome.code == 2
    assert "checkpoint_every counts steps, but modules.speed.CudaGraph makes 4 at a time: give a time" in outcome.err

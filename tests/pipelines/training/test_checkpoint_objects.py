"""Runs whose modules, data and callbacks keep more than tensors and plain values in their checkpoints."""

from pathlib import Path

import pytest
import torch
import yaml
from mlflow import MlflowClient

from pipelines.checkpoints import known_files
from pipelines.tracking.store import Store

pytestmark = [
    pytest.mark.usefixtures("tables"),
    pytest.mark.filterwarnings("ignore:Attribute .* (removed from hparams|is an instance of .nn.Module)"),
]

STRANGERS = "tests.fixtures.strangers.objects"
NET = ["--model.net", "torch.nn.Linear", "--model.net.in_features", "4", "--model.net.out_features", "2"]


@pytest.fixture
def config(tmp_path):
    """A configuration with strange modules, by the name of the model."""

    def write(model, *callbacks):
        trainer = {
            "max_epochs": 4,
            "accelerator": "cpu",
            "callbacks": [{"class_path": f"{STRANGERS}.{name}"} for name in callbacks],
        }
        parts = {"data": f"{STRANGERS}.Data", "model": f"{STRANGERS}.{model}"}
        content = {**{key: {"class_path": value} for key, value in parts.items()}, "trainer": trainer}
        path = tmp_path / "strange.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def checkpoints(run_id):
    return Path(Store().find(run_id).file("checkpoints/best.ckpt")).parent


def listed():
    path = known_files.state_folder() / "checkpoints.sha256"
    return len(path.read_text().split()) if path.exists() else 0


@pytest.mark.parametrize("arguments", [[], NET])
def test_callables_and_networks_in_hyperparameters_are_left_out_of_plain_checkpoints(litlab, config, arguments):
    outcome = litlab("fit", "-c", config("Strange"), *arguments)
    assert outcome.code == 0, outcome.err
    content = torch.load(checkpoints(outcome.run_id) / "best.ckpt", weights_only=False)
    assert content["hyper_parameters"] == {"hidden": 8} if arguments else {"hidden": 8, "net": None}
    assert content["datamodule_hyper_parameters"] == {"folder": "data", "clip": None}
    assert litlab("test", outcome.run_id).code == 0


def stop_and_resume(litlab, path, tmp_path, monkeypatch, *arguments):
    """Interrupt a fit in its third epoch, resume it, and return the run id and the output of resume."""
    monkeypatch.setenv("STRANGER_STOPS", str(tmp_path / "stop"))
    (tmp_path / "stop").touch()
    outcome = litlab("fit", "-c", path)
    assert outcome.code == 130, outcome.err
    (run,) = MlflowClient().search_runs(["1"])
    return run.info.run_id, litlab("resume", run.info.run_id, *arguments)


def test_a_run_with_objects_in_every_state_is_resumed_and_ends_like_an_uninterrupted_one(
    litlab, config, tmp_path, monkeypatch
):
    path = config("StrangeState", "PhaseCallback")
    run_id, resumed = stop_and_resume(litlab, path, tmp_path, monkeypatch)
    assert resumed.code == 0, resumed.err
    assert "after epoch 1, from last.ckpt" in resumed.err
    assert "damaged" not in resumed.err
    whole = litlab("fit", "-c", path)
    assert whole.err.count("without callbacks/PhaseCallback/function, function") <= 1
    states = [torch.load(checkpoints(run) / "last.ckpt", weights_only=False) for run in (run_id, whole.run_id)]
    for name, weight in states[0]["state_dict"].items():
        assert torch.equal(weight, states[1]["state_dict"][name])
    assert litlab("test", run_id).code == 0
    assert litlab("validate", run_id).code == 0


def test_a_run_with_objects_of_somebody_else_needs_trust(litlab, config, tmp_path, monkeypatch):
    path = config("StrangeState", "PhaseCallback")
    monkeypatch.setenv("STRANGER_STOPS", str(tmp_path / "stop"))
    (tmp_path / "stop").touch()
    assert litlab("fit", "-c", path).code == 130
    (run,) = MlflowClient().search_runs(["1"])
    run_id = run.info.run_id
    before = sorted(file.name for file in checkpoints(run_id).iterdir())
    monkeypatch.setenv("LITLAB_STATE", str(tmp_path / "of somebody else"))
    for verb in ("resume", "test", "validate"):
        refused = litlab(verb, run_id)
        assert refused.code == 2, refused.err
        assert f"{STRANGERS}.Phase" in refused.err
        assert "--trust" in refused.err
        assert "damaged" not in refused.err
        assert "Traceback" not in refused.err
    assert sorted(file.name for file in checkpoints(run_id).iterdir()) == before
    assert MlflowClient().get_run(run_id).info.status == "KILLED", "nothing has changed"
    assert litlab("test", run_id, "--trust").code == 0
    assert litlab("validate", run_id, "--trust").code == 0
    resumed = litlab("resume", run_id, "--trust")
    assert resumed.code == 0, resumed.err
    assert "after epoch 1, from last.ckpt" in resumed.err
    assert litlab("test", run_id).code == 0, "this user wrote the checkpoint of the resumed run"


def test_a_new_run_starts_from_a_checkpoint_of_somebody_else_only_if_it_is_trusted(
    litlab, config, tmp_path, monkeypatch
):
    path = config("StrangeState")
    run_id = litlab("fit", "-c", path).run_id
    monkeypatch.setenv("LITLAB_STATE", str(tmp_path / "of somebody else"))
    weights = litlab("fit", "-c", path, "--weights", run_id)
    assert weights.code == 0, weights.err
    monkeypatch.setenv("LITLAB_STATE", str(tmp_path / "of a third one"))
    arguments = ["fit", "-c", path, "--ckpt_path", checkpoints(run_id) / "last.ckpt", "--trainer.max_epochs", "5"]
    refused = litlab(*arguments)
    assert refused.code == 2
    assert "--trust" in refused.err
    assert len(MlflowClient().search_runs(["1"])) == 2, "no run was created"
    assert litlab(*arguments, "--trust").code == 0


def test_what_only_callbacks_keep_needs_no_trust_to_be_tested(litlab, config, tmp_path, monkeypatch):
    outcome = litlab("fit", "-c", config("Strange", "PhaseCallback"))
    assert outcome.code == 0, outcome.err
    monkeypatch.setenv("LITLAB_STATE", str(tmp_path / "of somebody else"))
    assert litlab("test", outcome.run_id).code == 0


def test_litlabs_own_runs_are_not_listed(litlab):
    assert litlab("fit", "digits-mlp", "--trainer.max_epochs", "1").code == 0
    assert listed() == 0

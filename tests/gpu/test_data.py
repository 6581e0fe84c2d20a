"""Data on an NVIDIA GPU: held there, or copied without waiting; no step of an epoch waits for the CPU."""

import json

import pytest
import torch
from lightning.pytorch import Callback

from datamodules.digits import Digits
from modules.convnet import ConvNet
from pipelines.tracking.store import Store
from pipelines.training.fit import fit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.usefixtures("tables"),
]


class Batches(Callback):
    """Records where the batches of the loader are, before they are moved."""

    def __init__(self):
        self.found = set()

    def on_train_epoch_start(self, trainer, pl_module):
        images, _ = next(iter(trainer.train_dataloader))
        self.found.add((images.device.type, images.is_pinned()))


@pytest.mark.parametrize(("choice", "expected"), [("auto", "cuda"), ("cuda", "cuda"), ("cpu", "cpu")])
def test_data_are_held_where_they_are_asked_for(choice, expected, make_trainer):
    batches, data = Batches(), Digits(device=choice)
    make_trainer(accelerator="cuda", max_epochs=1, callbacks=[batches]).fit(ConvNet((1, 28, 28), 10), data)
    assert batches.found == {(expected, expected == "cpu")}
    assert data.train_set.inputs.device.type == "cpu"


def test_held_data_give_the_losses_of_copied_data(uri):
    found = []
    for choice in ("cpu", "cuda"):
        keys = ["--trainer.accelerator=cuda", "--trainer.max_epochs=2", f"--data.device={choice}"]
        result = fit("digits-mlp", overrides=[*keys, "--model.dropout=0"])
        lines = Store(uri).find(result.run_id).file("metrics.jsonl").read_text().splitlines()
        found.append([line["train/loss"] for line in map(json.loads, lines) if "train/loss" in line])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_a_run_with_data_on_the_gpu_is_tested_on_the_cpu(litlab):
    keys = ["--trainer.accelerator=cuda", "--trainer.max_epochs=1", "--data.device=cuda"]
    assert litlab("fit", "digits-mlp", *keys).code == 0
    outcome = litlab("test", "latest", "--trainer.accelerator=cpu")
    assert outcome.code == 0, outcome.err


@pytest.fixture
def sync_errors(tmp_path, monkeypatch):
    """A callback by name, with which waiting for the GPU is an error from the second batch to the last but one."""
    (tmp_path / "sync_errors_callback.py").write_text("""
import warnings

import torch
from lightning.pytorch import Callback

class SyncErrors(Callback):
    def on_fit_start(self, trainer, pl_module):
        warnings.filterwarnings("ignore", "Synchronization debug mode")

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch and batch_idx and not trainer.is_last_batch:
            torch.cuda.set_sync_debug_mode("error")
        else:
            torch.cuda.set_sync_debug_mode("default")

    def on_train_epoch_end(self, trainer, pl_module):
        torch.cuda.set_sync_debug_mode("default")
""")
    monkeypatch.syspath_prepend(tmp_path)
    yield "--trainer.callbacks=sync_errors_callback.SyncErrors"
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("choice", ["cuda", "cpu"])
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("digits-mlp", ["--data.crop_padding=2", "--trainer.gradient_clip_val=1"]),
        ("digits-convnet", ["--model.dropout=0.5", "--trainer.precision=bf16-mixed"]),
        ("circles", []),
    ],
)
def test_no_step_waits_for_the_cpu(name, keys, choice, sync_errors):
    options = [
        "--trainer.accelerator=cuda",
        "--trainer.max_epochs=2",
        "--data.batch_size=10",
        f"--data.device={choice}",
    ]
    assert fit(name, overrides=[*keys, *options, sync_errors]) is not None


def test_a_loss_that_is_nan_ends_the_run_though_no_step_waits_for_it(litlab):
    keys = ["--trainer.accelerator=cuda", "--trainer.max_epochs=2", "--data.batch_size=5", "--model.optimizer.lr=1e30"]
    outcome = litlab("fit", "digits-mlp", *keys)
    assert outcome.code == 1
    assert "the training loss is" in outcome.err

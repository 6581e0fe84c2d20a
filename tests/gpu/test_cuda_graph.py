"""`modules.speed.CudaGraph` on an NVIDIA GPU: captured steps train as usual."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Callback

from datamodules.digits import Digits
from datamodules.sets import TensorSet
from modules.convnet import ConvNet
from modules.mlp import MLP
from modules.schedules import OneCycle
from modules.speed import CudaGraph, TensorFloat32

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.usefixtures("tables"),
]

SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
ADAM = partial(torch.optim.Adam, lr=0.001)


class Losses(Callback):
    """Records the loss of each step."""

    def __init__(self):
        self.found = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.found.append(outputs["loss"].clone())


class Outputs(Callback):
    """Keeps the outputs of an epoch's training steps, before their metrics are reset."""

    def on_train_epoch_end(self, trainer, pl_module):
        self.found = torch.cat([outputs for outputs, _ in pl_module.train_metrics.pending]).cpu()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("optimizer", [SGD, ADAM])
@pytest.mark.parametrize("schedule", [None, OneCycle, partial(torch.optim.lr_scheduler.StepLR, step_size=1)])
def test_captured_steps_train_as_usual(make_trainer, optimizer, schedule, precision):
    found = []
    for callbacks in ([], [CudaGraph()]):
        torch.manual_seed(3)
        keys = {"channels": (4,), "hidden": (16,), "batch_norm": True, "optimizer": optimizer, "lr_scheduler": schedule}
        losses = Losses()
        trainer = make_trainer(
            accelerator="cuda", max_epochs=3, precision=precision, callbacks=[*callbacks, losses], gradient_clip_val=1.0
        )
        trainer.fit(ConvNet((1, 28, 28), 10, **keys), Digits(n_train=399, batch_size=20))
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        found.append((torch.stack(losses.found).cpu(), metrics))
    (losses, metrics), (own_losses, own_metrics) = found
    tolerance = 0.05 if precision == "32-true" else 0.2
    assert len(own_losses) == 60
    assert (own_losses - losses).abs().max() < tolerance
    assert own_metrics["train/loss"] == pytest.approx(metrics["train/loss"], abs=tolerance)
    assert own_metrics["val/loss"] == pytest.approx(metrics["val/loss"], abs=tolerance)


@pytest.mark.parametrize("optimizer", [SGD, ADAM])
@pytest.mark.parametrize("schedule", [None, OneCycle])
def test_captured_blocks_of_steps_train_as_usual(make_trainer, optimizer, schedule):
    """399 examples are 19 batches of 20, and one of 19: four blocks of 4, one of 3, and an eager step."""
    found = []
    for callbacks in ([], [CudaGraph(steps=4)]):
        torch.manual_seed(3)
        keys = {"channels": (4,), "hidden": (16,), "batch_norm": True, "optimizer": optimizer, "lr_scheduler": schedule}
        trainer = make_trainer(accelerator="cuda", max_epochs=4, callbacks=callbacks, gradient_clip_val=1.0)
        trainer.fit(ConvNet((1, 28, 28), 10, **keys), Digits(n_train=399, batch_size=20))
        found.append((trainer.global_step, {key: float(value) for key, value in trainer.callback_metrics.items()}))
    (steps, metrics), (blocks, own_metrics) = found
    assert (steps, blocks) == (80, 20)
    for name in ("train/loss", "val/loss"):
        assert own_metrics[name] == pytest.approx(metrics[name], abs=0.3 if schedule else 0.05)


def test_each_step_of_a_captured_block_draws_its_own_dropout(make_trainer):
    frozen = partial(torch.optim.SGD, lr=0.0)
    model = MLP((1, 28, 28), 10, hidden=(64,), dropout=0.5, optimizer=frozen)
    trainer = make_trainer(accelerator="cuda", max_epochs=1, callbacks=[CudaGraph(steps=4), outputs := Outputs()])
    images, labels = torch.zeros(160, 1, 28, 28, dtype=torch.uint8), torch.zeros(160, dtype=torch.int64)
    data = Digits(n_train=160, batch_size=20)
    data.setup("fit")
    data.train_set = TensorSet(images, labels)  # equal examples, so that only dropout tells batches apart
    trainer.fit(model, data)
    assert len({tuple(logits.flatten().tolist()) for logits in outputs.found.split(20)}) == 8


def test_each_captured_step_draws_its_own_dropout(make_trainer):
    losses = Losses()
    frozen = partial(torch.optim.SGD, lr=0.0)
    model = MLP((1, 28, 28), 10, hidden=(64,), dropout=0.5, optimizer=frozen)
    trainer = make_trainer(accelerator="cuda", max_epochs=12, callbacks=[CudaGraph(), losses])
    trainer.fit(model, Digits(n_train=20, batch_size=20))
    assert len({float(loss) for loss in losses.found}) == 12


def test_a_run_with_captured_steps_is_tested_and_continued(litlab):
    keys = ["--trainer.accelerator=cuda", "--trainer.callbacks=modules.speed.CudaGraph"]
    outcome = litlab("fit", "digits-convnet", *keys, "--trainer.max_epochs=2")
    assert outcome.code == 0, outcome.err
    outcome = litlab("fit", "digits-convnet", *keys, "--trainer.max_epochs=3", "--ckpt_path=latest")
    assert outcome.code == 0, outcome.err


def test_adversarial_images_are_found_on_the_gpu(litlab):
    assert litlab("fit", "digits-convnet", "--trainer.accelerator=cuda", "--trainer.max_epochs=2").code == 0
    outcome = litlab("explain", "adversarial", "latest", "--target", "1", "2")
    assert outcome.code == 0, outcome.err


class MatmulPrecision(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        self.found = torch.get_float32_matmul_precision()


def test_matrices_are_multiplied_as_tensorfloat32_while_training_only(make_trainer):
    precision = MatmulPrecision()
    trainer = make_trainer(accelerator="cuda", max_epochs=1, callbacks=[TensorFloat32(), precision])
    trainer.fit(MLP((1, 28, 28), 10, hidden=(16,)), Digits())
    assert (precision.found, torch.get_float32_matmul_precision()) == ("high", "highest")

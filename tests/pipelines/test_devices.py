"""Several processes train the same experiment as one: the batch is theirs together, and every example counts once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
TRAININGS = """
import json, sys
from functools import partial
from pathlib import Path
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from datamodules.digits import Digits
from datamodules.functions import Functions
from datamodules.paired_digits import PairedDigits
from datamodules.sets import ImageSet
from modules.autoencoder import ConvAutoencoder
from modules.convnet import ConvNet
from modules.functions import FunctionRegressor
from modules.linear import LinearClassifier
from modules.mlp import MLP
from modules.norms import SyncBatchNorm
from modules.schedules import OneCycle

class Curves(Callback):
    def __init__(self, name):
        self.path, self.epochs, self.drawn = folder / name, [], []
    def on_train_batch_start(self, trainer, model, batch, batch_idx):
        self.drawn.append(float(batch[0].double().sum()))
    def keep(self, trainer, *args):
        if trainer.callback_metrics:
            self.epochs.append({key: float(value) for key, value in trainer.callback_metrics.items()})
    on_train_epoch_start = keep  # the metrics of the epoch before are there now
    def on_train_end(self, trainer, model):
        self.keep(trainer)
        torch.save(dict(model.state_dict()), f"{self.path}-{trainer.global_rank}.pt")
        kept = {"epochs": self.epochs, "steps": trainer.global_step, "drawn": self.drawn}
        Path(f"{self.path}-{trainer.global_rank}.json").write_text(json.dumps(kept))

SGD = partial(torch.optim.SGD, lr=0.02, momentum=0.9)
IMAGES = (1, 28, 28)
CASES = {
    "mlp": lambda: (
        MLP(IMAGES, 10, hidden=(32,), optimizer=SGD, lr_scheduler=OneCycle, label_smoothing=0.1),
        Digits(n_train=241, n_val=251, batch_size=60, evaluate_train=True),
        {},
    ),
    "accumulated and clipped": lambda: (
        MLP(IMAGES, 10, hidden=(32,), optimizer=SGD, loss="quadratic"),
        Digits(n_train=243, n_val=251, batch_size=40),
        {"accumulate_grad_batches": 2, "gradient_clip_val": 0.05},
    ),
    "batch norm": lambda: (
        ConvNet(IMAGES, 10, channels=(4,), hidden=(16,), batch_norm=True, optimizer=partial(SGD, lr=0.01)),
        Digits(n_train=121, n_val=251, batch_size=40),
        {"sync_batchnorm": True, "plugins": [SyncBatchNorm()]},
    ),
    "batch norm of each": lambda: (
        ConvNet(IMAGES, 10, channels=(4,), hidden=(16,), batch_norm=True, optimizer=partial(SGD, lr=0.01)),
        Digits(n_train=121, n_val=251, batch_size=40),
        {},
    ),
    "autoencoder": lambda: (
        ConvAutoencoder(IMAGES, channels=(4,), hidden=(16,)),
        Digits(n_train=121, n_val=101, batch_size=40, normalization="unit"),
        {},
    ),
    "pairs": lambda: (
        LinearClassifier((1, 56, 28), 19, optimizer=partial(SGD, lr=0.0002)),
        PairedDigits("digits", n_train=241, n_val=101, batch_size=60),
        {},
    ),
    "regression": lambda: (FunctionRegressor((4,)), Functions(n_train=241, n_val=101, batch_size=60), {}),
    "augmented": lambda: (
        MLP(IMAGES, 10, hidden=(8,), dropout=0.5),
        Digits(n_train=241, n_val=101, batch_size=60, crop_padding=3, flip=True),
        {},
    ),
}

def train(name, processes, suffix=""):
    seed_everything(3, verbose=False)
    model, data, options = CASES[name]()
    data.setup("fit")  # here, because what a forked process sets up stays there
    if name == "augmented":
        image, label = data.train_set.inputs[:1], data.train_set.targets[:1]
        data.train_set = ImageSet(image.expand(241, -1, -1, -1).contiguous(), label.expand(241).contiguous())
    several = {"strategy": "ddp_fork", "devices": processes} if processes > 1 else {"devices": 1}
    Trainer(
        accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[Curves(f"{name}-{processes}{suffix}")],
        **several, **options,
    ).fit(model, data)

folder = Path(sys.argv[1])
for job in json.loads(sys.argv[2]):
    train(*job)
"""
ALIKE = ["mlp", "accumulated and clipped", "batch norm", "autoencoder", "pairs", "regression"]


def trained(folder, jobs):
    """Train what the jobs say, each with a number of processes, and leave what came out in a folder."""
    command = [sys.executable, "-c", TRAININGS, str(folder), json.dumps(jobs)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory):
    jobs = [(name, processes) for name in ALIKE for processes in (1, 2)]
    jobs += [("augmented", 2), ("augmented", 2, "-again"), ("batch norm of each", 2)]
    return trained(tmp_path_factory.mktemp("trained"), jobs)


def record(folder, name, rank=0):
    return json.loads((folder / f"{name}-{rank}.json").read_text())


def assert_alike(folder, name, processes):
    alone = record(folder, f"{name}-1")
    for rank in range(processes):
        shared = record(folder, f"{name}-{processes}", rank)
        assert shared["steps"] == alone["steps"]
        assert len(shared["epochs"]) == len(alone["epochs"]) == 3
        for one, other in zip(alone["epochs"], shared["epochs"], strict=True):
            assert one.keys() == other.keys()
            assert other == pytest.approx(one, rel=1e-5, abs=1e-6)
    assert alone["epochs"][-1]["train/loss"] < alone["epochs"][0]["train/loss"]
    weights = [torch.load(folder / f"{name}-{number}-0.pt", weights_only=True) for number in (1, processes)]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_have_the_loss_curve_and_the_weights_of_one(one_and_two, name):
    """With numbers of examples that neither the batch nor the processes divide, and one process without a last one."""
    assert_alike(one_and_two, name, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALIKE)
def test_four_processes_have_the_loss_curve_and_the_weights_of_one(tmp_path, name):
    assert_alike(trained(tmp_path, [(name, 1), (name, 4)]), name, 4)


def test_processes_draw_different_augmentations_and_the_same_seed_draws_them_again(one_and_two):
    first, again = ([record(one_and_two, f"augmented-2{suffix}", rank) for rank in (0, 1)] for suffix in ("", "-again"))
    assert first == again
    drawn = [one["drawn"] for one in first]  # a sum of pixels for each step, of one image again and again
    assert len({*drawn[0], *drawn[1]}) > len(drawn[0]) + 3
    assert not any(mine == other for mine, other in zip(*drawn, strict=True))
    paths = [one_and_two / f"augmented-2{suffix}-{rank}.pt" for suffix in ("", "-again") for rank in (0, 1)]
    reference, *others = (torch.load(path, weights_only=True) for path in paths)
    assert all(torch.equal(reference[key], other[key]) for other in others for key in reference)


def test_batch_norms_averages_are_those_of_the_first_process_wherever_they_are_used(one_and_two):
    """Each process has its own while it trains; what is validated must be what is kept (DDP sees to it)."""
    first, second = (torch.load(one_and_two / f"batch norm of each-2-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)

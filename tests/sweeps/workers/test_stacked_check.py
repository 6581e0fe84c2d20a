"""What `litlab sweep --stacked` refuses before the first trial, and why."""

from pathlib import Path

import pytest
import torch

from modules.mlp import MLP
from pipelines.config.cli import parse_config
from pipelines.config.data_setup import load_data
from pipelines.runtime.errors import UserError
from sweeps.workers import stacked_check, worker
from sweeps.workers.stacked_training import stack_models

QUICK = ["--trainer.max_epochs=2", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
DIGITS = ["digits-mlp", "--data.n_train=300", "--model.hidden=[16, 8]", *QUICK]
CONVNET = ["digits-convnet", "--data.n_train=300", "--model.channels=[4, 6]", "--model.hidden=[8]", *QUICK]
NETWORKS = '''
import torch
from torch import nn

from modules.base import Classifier


class Net(Classifier):
    """A user's network; what its steps draw or read differs."""

    def __init__(self, num_classes, input_shape, kind="plain", scale=1.0, **training):
        super().__init__(num_classes, **training)
        self.kind, self.scale = kind, scale
        self.conv = nn.Conv2d(input_shape[0], 4, 3)
        self.norm = nn.BatchNorm2d(4, track_running_stats=kind == "running")
        self.head = nn.LazyLinear(num_classes) if kind == "lazy" else nn.Linear(4, num_classes)
        self.conv.requires_grad_(kind != "frozen")
        self.noise = nn.AlphaDropout(0.1) if kind == "alpha" else nn.Dropout2d(0.1)

    def forward(self, images):
        x = nn.functional.dropout(self.noise(self.norm(self.conv(images)).relu()), 0.1, self.training)
        if self.kind == "noise":
            x = x + torch.randn_like(x)
        if self.kind == "decides" and x.sum() > 0:
            x = -x
        return self.scale * self.head(x.amax((2, 3)))


class Counting(Net):
    def __init__(self, *arguments, counter="", **options):
        super().__init__(*arguments, **options)
        self.counter = counter

    def training_step(self, batch, batch_idx):
        count = batch_idx % 9 if self.counter == "batch_idx" else getattr(self, self.counter)
        return super().training_step(batch, batch_idx) * (1 + count)


class Ending(Net):
    def on_train_end(self):
        self.scale = 0.0
'''


def check(argv, others):
    cli = parse_config("sweep", argv)
    data, model = cli.build()
    load_data(data, "fit")
    stacked_check.check(
        cli, data, model, {f"{key} {value}": worker._build(argv, {key: value}) for key, value in others.items()}
    )


@pytest.mark.parametrize(
    ("argv", "other", "message"),
    [
        (DIGITS, {"model.hidden": [32, 8]}, "model.hidden"),
        ([*CONVNET, "--model.batch_norm=true"], {}, "model: BatchNorm2d updates running statistics"),
        (["circles-manual"], {}, "CirclesMLP cannot be stacked: it calls its optimiser itself"),
        ([*DIGITS, "--trainer.precision=bf16-mixed"], {}, "trainer.precision"),
        ([*DIGITS, "--trainer.gradient_clip_val=1.0"], {}, "trainer.gradient_clip_val"),
        ([*DIGITS, "--trainer.max_epochs=-1"], {}, "trainer.max_epochs"),
        ([*DIGITS, "--trainer.devices=2", "--trainer.accelerator=cpu"], {}, "trainer.devices"),
        (
            [*DIGITS, "--model.lr_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau"],
            {},
            "model.lr_scheduler ReduceLROnPlateau",
        ),
        ([*DIGITS, "--model.optimizer=LBFGS"], {}, "model.optimizer LBFGS"),
        ([*DIGITS, "--model.loss=quadratic"], {"model.loss": "cross_entropy"}, "model.loss"),
        (["autoencoder", "--data=datamodules.digits.Digits"], {}, "it has metrics of other outputs"),
    ],
)
def test_what_cannot_be_stacked_is_refused_with_its_key(argv, other, message):
    with pytest.raises(UserError, match="leave out --stacked") as refused:
        check(argv, other)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("argv", "others"),
    [
        (CONVNET, {"model.conv_dropout": 0.2, "model.dropout": 0.0, "model.label_smoothing": 0.1}),
        ([*DIGITS, "--model.reduction=sum"], {"model.dropout": 0.4}),
        (["functions-linear"], {"model.optimizer.lr": 0.1}),
        (["diabetes-mlp"], {"model.dropout": 0.3}),
    ],
    ids=["convnet", "sum", "functions", "regression"],
)
def test_what_is_the_same_alone_and_together_can_be_stacked(argv, others):
    check(argv, others)


@pytest.fixture
def network(tmp_path, monkeypatch) -> list[str]:
    """Arguments that train a user's network."""
    Path(tmp_path / "stack_check_net.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    return [*CONVNET[:2], *QUICK, "--model=stack_check_net.Net"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("running", "BatchNorm2d updates running statistics"),
        ("alpha", "AlphaDropout cannot be stacked"),
        ("noise", "random operation"),
        ("decides", "data-dependent control flow"),
    ],
)
def test_a_users_network_is_refused_by_what_it_does(network, kind, message):
    with pytest.raises(UserError, match="leave out --stacked") as refused:
        check([*network, f"--model.kind={kind}"], {})
    assert message in str(refused.value)


def test_a_users_network_with_batch_norm_of_the_batch_can_be_stacked(network):
    check([*network], {"model.optimizer.lr": 0.1})


@pytest.mark.parametrize(
    ("counter", "reason"),
    [
        ("current_epoch", "its step depends on current_epoch"),
        ("global_step", "its step depends on global_step"),
        ("batch_idx", "unsupported operand type(s) for %: 'LaterBatch'"),
    ],
)
def test_a_step_that_depends_on_a_counter_is_refused(network, counter, reason):
    with pytest.raises(UserError, match="Counting cannot be stacked") as refused:
        check([*network, "--model=stack_check_net.Counting", f"--model.counter={counter}"], {})
    assert reason in str(refused.value)


def test_a_hook_after_the_training_is_refused(network):
    with pytest.raises(UserError, match="Ending cannot be stacked: it has the hook on_train_end"):
        check([*network, "--model=stack_check_net.Ending"], {})


def test_models_of_which_some_are_frozen_are_refused(network):
    with pytest.raises(UserError, match=r"space: model.kind frozen: trials that are stacked have the same layers"):
        check([*network], {"model.kind": "frozen"})


def test_models_that_differ_in_a_number_of_their_forward_pass_are_refused(network):
    with pytest.raises(UserError, match=r"model.scale 2.0: Net cannot be stacked: the loss of a batch is .* alone"):
        check([*network], {"model.scale": 2.0})


class NegatedMLP(MLP):
    def forward(self, inputs):
        return -super().forward(inputs)


def test_a_subclass_of_a_perceptron_is_stacked_with_its_own_forward_pass():
    torch.manual_seed(0)
    models, inputs = [NegatedMLP((4,), 3, hidden=(2,)) for _ in range(2)], torch.randn(5, 4)
    expected = torch.stack([model.eval()(inputs) for model in models])
    stack = stack_models(models, torch.device("cpu"))
    ((outputs, _),) = stack.evaluation_step((inputs, torch.zeros(5, dtype=torch.long)))
    torch.testing.assert_close(outputs, expected)


def test_on_another_accelerator_than_nvidias_the_advice_is_the_cpu():
    with pytest.raises(UserError, match=r"^trainer.accelerator: .* not on mps \(--trainer.accelerator cpu\)"):
        stacked_check._check_device(torch.device("mps"), 1)

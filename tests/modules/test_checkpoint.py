"""Checkpoints restore hyperparameters and weights, and load with weights_only=True."""

from functools import partial

import pytest
import torch

from modules.convnet import ConvNet
from modules.linear import LinearClassifier
from modules.mlp import MLP

SHAPE = (1, 28, 28)


@pytest.mark.parametrize(
    ("build", "options"),
    [
        (LinearClassifier, {"loss": "quadratic"}),
        (MLP, {"hidden": (20, 15), "activation": "tanh", "dropout": 0.25}),
        (MLP, {"hidden": [20], "lr_scheduler": partial(torch.optim.lr_scheduler.StepLR, step_size=1)}),
        (ConvNet, {"channels": [2, 3], "kernel_size": [5, 3], "pool": "average", "hidden": [8], "batch_norm": True}),
    ],
)
def test_a_model_loads_from_a_checkpoint_with_weights_only(build, options, digits, make_trainer, tmp_path):
    model = build(SHAPE, 10, optimizer=partial(torch.optim.SGD, lr=0.01), **options)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(model, digits)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = build.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    images = digits.normalize(digits.val_set.inputs)
    assert torch.equal(loaded.eval()(images), model.eval()(images))
    assert model.hparams.items() <= loaded.hparams.items()
    assert loaded.hparams.keys() - model.hparams.keys() <= {"lr_scheduler"}  # callables are not saved, None is


def test_hyperparameters_contain_plain_arguments_and_no_callables():
    model = MLP(SHAPE, 10, hidden=(20,), dropout=0.25, optimizer=partial(torch.optim.SGD, lr=0.01))
    given = {"input_shape": SHAPE, "num_classes": 10, "hidden": (20,), "dropout": 0.25}
    assert given.items() <= model.hparams.items()
    assert "optimizer" not in model.hparams


def test_a_run_resumes_bit_identically_from_a_checkpoint(digits, make_trainer, tmp_path):
    """Two epochs plus two resumed epochs end with the weights of four: data order and optimiser state are restored."""

    def model() -> MLP:
        torch.manual_seed(0)
        return MLP(SHAPE, 10, hidden=(16,))

    uninterrupted, half, resumed = model(), model(), model()
    make_trainer(max_epochs=4).fit(uninterrupted, digits)
    first = make_trainer(max_epochs=2)
    first.fit(half, digits)
    first.save_checkpoint(tmp_path / "half.ckpt")
    make_trainer(max_epochs=4).fit(resumed, digits, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(uninterrupted.parameters(), resumed.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(uninterrupted.parameters(), half.parameters(), strict=True))

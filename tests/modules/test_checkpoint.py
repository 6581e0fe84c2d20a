"""A checkpoint gives the model back: built the same, with the same weights, and without trusting any pickle."""

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
def test_a_model_comes_back_from_a_checkpoint_with_weights_only(build, options, digits, make_trainer, tmp_path):
    model = build(SHAPE, 10, optimizer=partial(torch.optim.SGD, lr=0.01), **options)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(model, digits)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = build.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    images = digits.normalize(digits.val_set.images_NCHW)
    assert torch.equal(loaded.eval()(images), model.eval()(images))
    assert model.hparams.items() <= loaded.hparams.items()
    assert loaded.hparams.keys() - model.hparams.keys() <= {"lr_scheduler"}  # a callable is left out, its default not


def test_hyperparameters_are_all_plain_arguments_and_no_callable():
    model = MLP(SHAPE, 10, hidden=(20,), dropout=0.25, optimizer=partial(torch.optim.SGD, lr=0.01))
    given = {"input_shape": SHAPE, "num_classes": 10, "hidden": (20,), "dropout": 0.25}
    assert given.items() <= model.hparams.items()
    assert "optimizer" not in model.hparams


def test_a_run_resumes_from_a_checkpoint_where_it_stopped(digits, make_trainer, tmp_path):
    """Two epochs and two more end at the same weights as four in a row: order and optimiser go on."""

    def model() -> MLP:
        torch.manual_seed(0)
        return MLP(SHAPE, 10, hidden=(16,))

    whole, half, rest = model(), model(), model()
    make_trainer(max_epochs=4).fit(whole, digits)
    first = make_trainer(max_epochs=2)
    first.fit(half, digits)
    first.save_checkpoint(tmp_path / "half.ckpt")
    make_trainer(max_epochs=4).fit(rest, digits, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), rest.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(whole.parameters(), half.parameters(), strict=True))

"""Options of ConvNet: strides, even kernel sizes, dropout after a stage."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from modules.convnet import ConvNet

SHAPE = (1, 28, 28)


def _net(**options) -> ConvNet:
    torch.manual_seed(0)
    return ConvNet(SHAPE, 10, **{"channels": (2, 3), "hidden": (), **options})


def _features(model: ConvNet) -> int:
    (head,) = (layer for layer in model.net if isinstance(layer, nn.Linear))
    return head.in_features


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 8])
def test_strides_halve_the_image_as_pooling_does(kernel):
    """For kernels of any size, and with as many parameters as with max pooling."""
    strided, pooled = _net(pool="stride", kernel_size=kernel), _net(pool="max", kernel_size=kernel)
    assert _features(strided) == _features(pooled) == 3 * 7 * 7
    assert [p.shape for p in strided.parameters()] == [p.shape for p in pooled.parameters()]
    assert not any(isinstance(layer, nn.MaxPool2d | nn.AvgPool2d) for layer in strided.net)
    assert strided(torch.zeros(2, *SHAPE)).shape == (2, 10)


def test_a_strided_convolution_is_every_second_value_of_the_full_one():
    strided, full = _net(pool="stride", channels=(3,)), _net(pool="none", channels=(3,))
    images = torch.randn(2, *SHAPE)
    torch.testing.assert_close(strided.net[0](images), full.net[0](images)[:, :, ::2, ::2])


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 6, 7, 8])
def test_a_convolution_keeps_the_size_like_same_padding_of_torch(kernel):
    """For an even kernel, padding="same" of torch warns that it makes a copy."""
    model = _net(channels=(3,), kernel_size=kernel, pool="none", activation="none")
    assert _features(model) == 3 * 28 * 28
    images = torch.randn(2, *SHAPE)
    *stage, _, _ = model.net
    (convolution,) = (layer for layer in stage if isinstance(layer, nn.Conv2d))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = F.conv2d(images, convolution.weight, convolution.bias, padding="same")
    torch.testing.assert_close(nn.Sequential(*stage)(images), expected)


def test_one_conv_has_the_63250_parameters_of_its_experiment():
    model = ConvNet(SHAPE, 10, channels=[8], kernel_size=8, pool="none", hidden=[])
    assert sum(p.numel() for p in model.parameters()) == 8 * 64 + 8 + 28 * 28 * 8 * 10 + 10 == 63_250


def test_dropout_after_a_stage_is_elementwise_and_active_in_training_only():
    model = _net(channels=(200,), kernel_size=1, conv_dropout=0.3, activation="sigmoid", pool="average")
    *stage, _, _ = model.net
    out = nn.Sequential(*stage)(torch.zeros(4, *SHAPE)).detach()
    dropped = (out == 0).double()
    n, rate = dropped.numel(), 0.3
    assert float(dropped.mean()) == pytest.approx(rate, abs=5 * (rate * (1 - rate) / n) ** 0.5)
    assert float(dropped.mean((0, 2, 3)).min()) > 0.05  # no channel is kept or dropped completely
    assert float(dropped.mean((0, 2, 3)).max()) < 0.6
    remaining = out[out != 0]
    model.eval()
    evaluated = nn.Sequential(*stage)(torch.zeros(4, *SHAPE)).detach()
    assert float(remaining.mean()) == pytest.approx(float(evaluated.mean()) / 0.7, rel=0.02)
    assert not (evaluated == 0).any()


@pytest.mark.parametrize(
    "options", [{"kernel_size": 0}, {"kernel_size": (3, 0)}, {"channels": (2, 0)}, {"hidden": [0]}]
)
def test_the_error_for_a_width_below_one_names_its_key(options):
    (key,) = options
    with pytest.raises(ValueError, match=rf"model\.{key} has an entry below 1"):
        _net(**options)


def test_a_variant_learns_and_loads_from_a_checkpoint(digits, make_trainer, tmp_path):
    model = _net(channels=(4, 4), pool="stride", kernel_size=4, conv_dropout=0.1, init="he")
    trainer = make_trainer(max_epochs=12)
    trainer.fit(model, digits)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = ConvNet.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True).eval()
    images = digits.normalize(digits.val_set.inputs)
    assert torch.equal(loaded(images), model.eval()(images))
    assert trainer.callback_metrics["val/acc"] > 0.3

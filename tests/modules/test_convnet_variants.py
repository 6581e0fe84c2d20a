"""What a convolutional net may be made of besides: strides, even kernels, dropout after a stage."""

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
    (top,) = (layer for layer in model.net if isinstance(layer, nn.Linear))
    return top.in_features


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 8])
def test_strides_halve_the_image_as_pooling_does(kernel):
    """By kernels of any size, and with as many parameters as max-pooling leaves."""
    strided, pooled = _net(pool="stride", kernel_size=kernel), _net(pool="max", kernel_size=kernel)
    assert _features(strided) == _features(pooled) == 3 * 7 * 7
    assert [p.shape for p in strided.parameters()] == [p.shape for p in pooled.parameters()]
    assert not any(isinstance(layer, nn.MaxPool2d | nn.AvgPool2d) for layer in strided.net)
    assert strided(torch.zeros(2, *SHAPE)).shape == (2, 10)


def test_a_strided_convolution_is_every_second_value_of_the_whole_one():
    strided, whole = _net(pool="stride", channels=(3,)), _net(pool="none", channels=(3,))
    images = torch.randn(2, *SHAPE)
    torch.testing.assert_close(strided.net[0](images), whole.net[0](images)[:, :, ::2, ::2])


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 6, 7, 8])
def test_a_convolution_keeps_the_size_and_is_torchs_same_padding(kernel):
    """Torch's own padding="same" warns for an even kernel, of the copy that it makes."""
    model = _net(channels=(3,), kernel_size=kernel, pool="none", activation="none")
    assert _features(model) == 3 * 28 * 28
    images = torch.randn(2, *SHAPE)
    *stage, _, _ = model.net
    (convolution,) = (layer for layer in stage if isinstance(layer, nn.Conv2d))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = F.conv2d(images, convolution.weight, convolution.bias, padding="same")
    torch.testing.assert_close(nn.Sequential(*stage)(images), expected)


def test_the_8x8_convolution_of_one_conv_has_the_63250_parameters_of_its_experiment():
    model = ConvNet(SHAPE, 10, channels=[8], kernel_size=8, pool="none", hidden=[])
    assert sum(p.numel() for p in model.parameters()) == 8 * 64 + 8 + 28 * 28 * 8 * 10 + 10 == 63_250


def test_dropout_after_a_stage_silences_single_values_in_training_only():
    model = _net(channels=(200,), kernel_size=1, conv_dropout=0.3, activation="sigmoid", pool="average")
    *stage, _, _ = model.net
    out = nn.Sequential(*stage)(torch.zeros(4, *SHAPE)).detach()
    silent = (out == 0).double()
    n, rate = silent.numel(), 0.3
    assert float(silent.mean()) == pytest.approx(rate, abs=5 * (rate * (1 - rate) / n) ** 0.5)
    assert float(silent.mean((0, 2, 3)).min()) > 0.05  # no channel is spared or silenced as a whole
    assert float(silent.mean((0, 2, 3)).max()) < 0.6
    kept = out[out != 0]
    model.eval()
    whole = nn.Sequential(*stage)(torch.zeros(4, *SHAPE)).detach()
    assert float(kept.mean()) == pytest.approx(float(whole.mean()) / 0.7, rel=0.02)
    assert not (whole == 0).any()


@pytest.mark.parametrize(
    "options", [{"kernel_size": 0}, {"kernel_size": (3, 0)}, {"channels": (2, 0)}, {"hidden": [0]}]
)
def test_a_width_below_one_is_refused_by_its_key(options):
    (key,) = options
    with pytest.raises(ValueError, match=rf"model\.{key} has an entry below 1"):
        _net(**options)


def test_variants_learn_and_come_back_from_a_checkpoint(digits, make_trainer, tmp_path):
    model = _net(channels=(4, 4), pool="stride", kernel_size=4, conv_dropout=0.1, init="he")
    trainer = make_trainer(max_epochs=12)
    trainer.fit(model, digits)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = ConvNet.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True).eval()
    images = digits.normalize(digits.val_set.images_NCHW)
    assert torch.equal(loaded(images), model.eval()(images))
    assert trainer.callback_metrics["val/acc"] > 0.3

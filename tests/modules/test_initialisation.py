"""How weights begin, and what becomes of units that begin alike."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from modules.convnet import ConvNet
from modules.layers import initialize
from modules.linear import LinearClassifier
from modules.mlp import MLP
from modules.probes import Units

SHAPE = (1, 28, 28)
RANDOM = ["default", "normal", "xavier", "he"]


def _layers(model: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]


def _models(init: str, **options) -> list[nn.Module]:
    """One of each kind that takes an `init`; together, matrices of 90 to 100,352 weights."""
    torch.manual_seed(0)
    return [
        MLP(SHAPE, 10, hidden=(128, 64), init=init, **options),
        ConvNet(SHAPE, 10, channels=(9, 10), kernel_size=(5, 4), hidden=(64,), init=init, **options),
        LinearClassifier(SHAPE, 10, init=init, **options),
    ]


@pytest.mark.parametrize(("init", "scale", "value"), [("zero", 0.1, 0.0), ("constant", 0.1, 0.1), ("constant", -2, -2)])
def test_zero_and_constant_weights_are_all_the_same(init, scale, value):
    for model in _models(init, init_scale=scale):
        for layer in _layers(model):
            assert torch.equal(layer.weight, torch.full_like(layer.weight, value))


def _deviation(init: str, layer: nn.Linear | nn.Conv2d, scale: float) -> float:
    """The standard deviation that the papers give a layer."""
    window = math.prod(layer.weight.shape[2:])
    fan_in, fan_out = layer.weight.shape[1] * window, layer.weight.shape[0] * window
    return {"normal": scale, "xavier": math.sqrt(2 / (fan_in + fan_out)), "he": math.sqrt(2 / fan_in)}[init]


@pytest.mark.parametrize(("init", "scale"), [("normal", 0.1), ("normal", 1.0), ("xavier", 0.1), ("he", 0.1)])
def test_random_weights_have_the_mean_and_deviation_of_their_paper(init, scale):
    """Within five standard errors: s / sqrt(n) of the mean, s / sqrt(2n) of the deviation (of a normal; less here)."""
    for model in _models(init, init_scale=scale):
        for layer in _layers(model):
            weights, s, n = layer.weight.detach().double(), _deviation(init, layer, scale), layer.weight.numel()
            assert float(weights.mean()) == pytest.approx(0, abs=5 * s / math.sqrt(n))
            assert float(weights.std()) == pytest.approx(s, abs=5 * s / math.sqrt(2 * n))


def test_xavier_is_uniform_and_he_is_not():
    """Of 100,352 uniform weights none lies beyond sqrt(3) deviations; of normal ones, 8 % do."""
    beyond = {}
    for init in ("xavier", "he"):
        layer = _layers(_models(init)[0])[0]
        s = _deviation(init, layer, 0)
        beyond[init] = float((layer.weight.abs() > math.sqrt(3) * s * (1 + 1e-6)).double().mean())
    assert beyond["xavier"] == 0
    assert beyond["he"] == pytest.approx(0.0833, abs=5 * math.sqrt(0.0833 / 100_352))


@pytest.mark.parametrize("init", ["zero", "constant", "normal", "xavier", "he"])
def test_biases_begin_at_zero(init):
    biases = [layer.bias for model in _models(init) for layer in _layers(model)]
    assert len(biases) == 8
    assert all(torch.equal(bias, torch.zeros_like(bias)) for bias in biases)


def test_default_is_torchs_own_for_the_same_seed():
    model = _models("default")[0]
    torch.manual_seed(0)
    torchs = [nn.Linear(784, 128), nn.Linear(128, 64), nn.Linear(64, 10)]
    for ours, theirs in zip(_layers(model), torchs, strict=True):
        assert torch.equal(ours.weight, theirs.weight)
        assert torch.equal(ours.bias, theirs.bias)


def test_batch_norm_is_left_alone_and_a_convolution_without_bias_has_none():
    model = ConvNet(SHAPE, 10, channels=(3,), batch_norm=True, init="constant", init_scale=5)
    (norm,) = (layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))
    assert torch.equal(norm.weight, torch.ones(3))
    assert _layers(model)[0].bias is None


def test_layers_inside_others_are_found_too():
    net = nn.Sequential(nn.Sequential(nn.Linear(3, 2)), nn.ModuleList([nn.Conv2d(1, 1, 3)]))
    initialize(net, "zero", 0)
    assert not any(layer.weight.any() for layer in _layers(net))


def _after_training(digits, make_trainer, init: str, **options) -> tuple[MLP, dict[str, float]]:
    torch.manual_seed(0)
    model = MLP(SHAPE, 10, hidden=(32, 16), init=init, optimizer=partial(torch.optim.SGD, lr=0.1), **options)
    trainer = make_trainer(max_epochs=4, callbacks=[Units()])
    trainer.fit(model, digits)
    return model, {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize(("init", "scale"), [("zero", 0.1), ("constant", 0.1), ("constant", -0.05)])
def test_units_that_begin_alike_stay_alike(init, scale, activation, digits, make_trainer):
    model, metrics = _after_training(digits, make_trainer, init, init_scale=scale, activation=activation)
    assert metrics["val/distinct_units_1"] == metrics["val/distinct_units_2"] == 1
    for layer in _layers(model)[:-1]:
        torch.testing.assert_close(layer.weight, layer.weight[:1].expand_as(layer.weight), rtol=0, atol=1e-4)


@pytest.mark.parametrize("init", RANDOM)
def test_units_that_begin_at_random_are_all_distinct_and_learn(init, digits, make_trainer):
    _, metrics = _after_training(digits, make_trainer, init)
    assert (metrics["val/distinct_units_1"], metrics["val/distinct_units_2"]) == (32, 16)
    assert metrics["val/acc"] > 0.3  # three times chance after 20 steps


def test_with_zero_weights_every_relu_is_dead_and_only_the_last_bias_learns(digits, make_trainer):
    model, metrics = _after_training(digits, make_trainer, "zero")
    assert metrics["val/dead_units"] == metrics["val/dead_units_1"] == metrics["val/dead_units_2"] == 1
    changed = [bool(parameter.detach().any()) for parameter in model.parameters()]
    assert changed == [False] * 5 + [True]


def test_a_constant_network_with_tanh_does_learn_although_its_layers_work_as_one_unit(digits, make_trainer):
    _, metrics = _after_training(digits, make_trainer, "constant", init_scale=0.01, activation="tanh")
    chance = 0.1
    assert metrics["val/dead_units"] == 0
    assert metrics["train/acc"] > chance
    assert metrics["train/loss"] < math.log(10)

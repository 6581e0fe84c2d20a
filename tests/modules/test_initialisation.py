"""Weight initialisation: distributions, and training from identical units."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from modules.convnet import ConvNet
from modules.layers import initialize
from modules.linear import LinearClassifier
from modules.mlp import MLP
from modules.probes import DeadUnits

SHAPE = (1, 28, 28)
RANDOM = ["default", "normal", "truncated_normal", "xavier", "he"]
TRUNCATED_STD = 0.87962566  # of a standard normal variable without values beyond 2: scipy.stats.truncnorm(-2, 2).std()


def _layers(model: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]


def _models(init: str, **options) -> list[nn.Module]:
    """One model of each class that has the argument `init`; matrices of 90 to 100,352 weights."""
    torch.manual_seed(0)
    return [
        MLP(SHAPE, 10, hidden=(128, 64), init=init, **options),
        ConvNet(SHAPE, 10, channels=(9, 10), kernel_size=(5, 4), hidden=(64,), init=init, **options),
        LinearClassifier(SHAPE, 10, init=init, **options),
    ]


@pytest.mark.parametrize(("init", "scale", "value"), [("zero", 0.1, 0.0), ("constant", 0.1, 0.1), ("constant", -2, -2)])
def test_zero_and_constant_weights_are_all_equal(init, scale, value):
    for model in _models(init, init_scale=scale):
        for layer in _layers(model):
            assert torch.equal(layer.weight, torch.full_like(layer.weight, value))


def _expected_std(init: str, layer: nn.Linear | nn.Conv2d, scale: float) -> float:
    """Standard deviation of a layer's weights according to the paper."""
    kernel_elements = math.prod(layer.weight.shape[2:])
    fan_in, fan_out = layer.weight.shape[1] * kernel_elements, layer.weight.shape[0] * kernel_elements
    normal = {"normal": scale, "truncated_normal": TRUNCATED_STD * scale}
    return {**normal, "xavier": math.sqrt(2 / (fan_in + fan_out)), "he": math.sqrt(2 / fan_in)}[init]


@pytest.mark.parametrize(
    ("init", "scale"), [("normal", 0.1), ("normal", 1.0), ("truncated_normal", 0.1), ("xavier", 0.1), ("he", 0.1)]
)
def test_random_weights_have_mean_zero_and_the_standard_deviation_of_the_paper(init, scale):
    """Within five standard errors: s / sqrt(n) for the mean, s / sqrt(2n) for the std of a normal (less otherwise)."""
    for model in _models(init, init_scale=scale):
        for layer in _layers(model):
            weights, s, n = layer.weight.detach().double(), _expected_std(init, layer, scale), layer.weight.numel()
            assert float(weights.mean()) == pytest.approx(0, abs=5 * s / math.sqrt(n))
            assert float(weights.std()) == pytest.approx(s, abs=5 * s / math.sqrt(2 * n))


def test_xavier_is_uniform_and_he_is_normal():
    """None of 100,352 uniform weights is beyond sqrt(3) standard deviations, but 8 % of normal ones are."""
    beyond = {}
    for init in ("xavier", "he"):
        layer = _layers(_models(init)[0])[0]
        s = _expected_std(init, layer, 0)
        beyond[init] = float((layer.weight.abs() > math.sqrt(3) * s * (1 + 1e-6)).double().mean())
    assert beyond["xavier"] == 0
    assert beyond["he"] == pytest.approx(0.0833, abs=5 * math.sqrt(0.0833 / 100_352))


def test_no_weight_of_a_truncated_normal_is_beyond_two_standard_deviations():
    for model in _models("truncated_normal", init_scale=0.3):
        assert all(layer.weight.abs().max() <= 0.6 for layer in _layers(model))
    assert _layers(model)[0].weight.abs().max() > 0.59  # of 7,840 weights, 0.2 % of which are expected beyond it


@pytest.mark.parametrize("scale", [0.0, -0.1])
def test_the_error_for_a_truncated_normal_without_spread_names_its_key(scale):
    with pytest.raises(ValueError, match=rf"model\.init_scale is {scale}"):
        MLP(SHAPE, 10, init="truncated_normal", init_scale=scale)


@pytest.mark.parametrize("init", ["zero", "constant", "normal", "truncated_normal", "xavier", "he"])
@pytest.mark.parametrize(("given", "value"), [(None, 0.0), (0.1, 0.1), (-1.0, -1.0)])
def test_biases_have_the_initial_value_that_is_given_and_are_zero_by_default(init, given, value):
    biases = [layer.bias for model in _models(init, init_bias=given) for layer in _layers(model)]
    assert len(biases) == 8
    assert all(torch.equal(bias, torch.full_like(bias, value)) for bias in biases)


def test_an_initial_bias_leaves_torchs_weights():
    for model, with_bias in zip(_models("default"), _models("default", init_bias=0.5), strict=True):
        for layer, other in zip(_layers(model), _layers(with_bias), strict=True):
            assert torch.equal(layer.weight, other.weight)
            assert torch.equal(other.bias, torch.full_like(layer.bias, 0.5))


def test_default_equals_torchs_initialisation_with_the_same_seed():
    model = _models("default")[0]
    torch.manual_seed(0)
    expected_layers = [nn.Linear(784, 128), nn.Linear(128, 64), nn.Linear(64, 10)]
    for layer, expected in zip(_layers(model), expected_layers, strict=True):
        assert torch.equal(layer.weight, expected.weight)
        assert torch.equal(layer.bias, expected.bias)


def test_batch_norm_is_not_changed_and_a_convolution_without_bias_stays_without():
    model = ConvNet(SHAPE, 10, channels=(3,), batch_norm=True, init="constant", init_scale=5)
    (norm,) = (layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))
    assert torch.equal(norm.weight, torch.ones(3))
    assert _layers(model)[0].bias is None


def test_nested_layers_are_initialised():
    net = nn.Sequential(nn.Sequential(nn.Linear(3, 2)), nn.ModuleList([nn.Conv2d(1, 1, 3)]))
    initialize(net, "zero", 0)
    assert not any(layer.weight.any() for layer in _layers(net))


def _after_training(digits, make_trainer, init: str, **options) -> tuple[MLP, dict[str, float]]:
    torch.manual_seed(0)
    model = MLP(SHAPE, 10, hidden=(32, 16), init=init, optimizer=partial(torch.optim.SGD, lr=0.1), **options)
    trainer = make_trainer(max_epochs=4, callbacks=[DeadUnits()])
    trainer.fit(model, digits)
    return model, {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
@pytest.mark.parametrize(("init", "scale"), [("zero", 0.1), ("constant", 0.1), ("constant", -0.05)])
def test_units_that_start_identical_stay_identical(init, scale, activation, digits, make_trainer):
    model, metrics = _after_training(digits, make_trainer, init, init_scale=scale, activation=activation)
    assert metrics["val/distinct_units_1"] == metrics["val/distinct_units_2"] == 1
    for layer in _layers(model)[:-1]:
        torch.testing.assert_close(layer.weight, layer.weight[:1].expand_as(layer.weight), rtol=0, atol=1e-4)


@pytest.mark.parametrize("init", RANDOM)
def test_units_that_start_at_random_are_all_distinct_and_learn(init, digits, make_trainer):
    _, metrics = _after_training(digits, make_trainer, init)
    assert (metrics["val/distinct_units_1"], metrics["val/distinct_units_2"]) == (32, 16)
    assert metrics["val/acc"] > 0.3  # three times chance after 20 steps


def test_with_zero_weights_every_relu_is_dead_and_only_the_last_bias_changes(digits, make_trainer):
    model, metrics = _after_training(digits, make_trainer, "zero")
    assert metrics["val/dead_units"] == metrics["val/dead_units_1"] == metrics["val/dead_units_2"] == 1
    changed = [bool(parameter.detach().any()) for parameter in model.parameters()]
    assert changed == [False] * 5 + [True]


def test_a_tanh_network_with_constant_weights_learns_although_its_layers_act_as_one_unit(digits, make_trainer):
    _, metrics = _after_training(digits, make_trainer, "constant", init_scale=0.01, activation="tanh")
    chance = 0.1
    assert metrics["val/dead_units"] == 0
    assert metrics["train/acc"] > chance
    assert metrics["train/loss"] < math.log(10)

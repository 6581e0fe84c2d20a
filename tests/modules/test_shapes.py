"""Architectures: parameter counts from the literature, shapes, activations, dropout and pooling."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from modules.convnet import ConvNet
from modules.layers import ACTIVATIONS
from modules.linear import LinearClassifier
from modules.mlp import MLP

MNIST_SHAPE = (1, 28, 28)


@pytest.mark.parametrize(
    ("build", "options", "expected"),
    [
        (ConvNet, {"channels": (32, 64), "kernel_size": 5, "hidden": (1024,)}, 832 + 51_264 + 3_212_288 + 10_250),
        (MLP, {"hidden": (256, 128)}, 200_960 + 32_896 + 1_290),
        (LinearClassifier, {}, 7_850),
        (MLP, {"hidden": ()}, 7_850),
        (ConvNet, {"channels": (), "hidden": ()}, 7_850),
    ],
)
def test_parameter_counts_equal_hand_computed_ones(build, options, expected):
    model = build(MNIST_SHAPE, 10, **options)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_deep_mnist_has_the_3274634_parameters_of_its_experiment():
    model = ConvNet(MNIST_SHAPE, 10, channels=(32, 64), kernel_size=5, hidden=(1024,), dropout=0.5)
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_274_634


@pytest.mark.parametrize("build", [LinearClassifier, MLP, ConvNet])
@pytest.mark.parametrize(("input_shape", "num_classes"), [((1, 28, 28), 10), ((3, 20, 12), 4)])
def test_each_model_maps_a_batch_of_images_to_one_logit_per_class(build, input_shape, num_classes):
    model = build(input_shape, num_classes)
    assert model(torch.zeros(5, *input_shape)).shape == (5, num_classes)


@pytest.mark.parametrize("build", [LinearClassifier, MLP, ConvNet])
def test_each_image_of_a_batch_is_classified_independently(build, digits):
    model = build(MNIST_SHAPE, 10).eval()
    images = digits.normalize(digits.val_set.inputs[:8])
    one_by_one = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(model(images), one_by_one)


@pytest.mark.parametrize(("pool", "side"), [("none", 28), ("average", 7), ("max", 7)])
def test_each_pooling_stage_halves_the_image(pool, side):
    model = ConvNet(MNIST_SHAPE, 10, channels=(2, 3), pool=pool, hidden=())
    (head,) = (layer for layer in model.net if isinstance(layer, nn.Linear))
    assert head.in_features == 3 * side**2
    assert model(torch.zeros(1, *MNIST_SHAPE)).shape == (1, 10)


def test_each_stage_has_its_own_kernel_size():
    model = ConvNet(MNIST_SHAPE, 10, channels=(2, 3, 4), kernel_size=(5, 3, 1))
    kernels = [tuple(layer.weight.shape) for layer in model.net if isinstance(layer, nn.Conv2d)]
    assert kernels == [(2, 1, 5, 5), (3, 2, 3, 3), (4, 3, 1, 1)]


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_convolution_has_a_bias_only_without_batch_norm(batch_norm):
    layers = list(ConvNet(MNIST_SHAPE, 10, channels=(2, 3), batch_norm=batch_norm).net)
    norms = [type(after) is nn.BatchNorm2d for before, after in pairwise(layers) if type(before) is nn.Conv2d]
    biases = [layer.bias is not None for layer in layers if type(layer) is nn.Conv2d]
    assert norms == [batch_norm] * 2
    assert biases == [not batch_norm] * 2


def test_building_a_network_does_not_change_batch_norm_statistics():
    """The blank image that is used to count features must not update the running statistics."""
    model = ConvNet(MNIST_SHAPE, 10, channels=(2,), batch_norm=True)
    (norm,) = (layer for layer in model.net if isinstance(layer, nn.BatchNorm2d))
    assert int(norm.num_batches_tracked) == 0
    assert torch.equal(norm.running_var, torch.ones(2))
    assert all(layer.training for layer in model.modules())


def _deviation_from_affine(model: nn.Module) -> float:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 8, *MNIST_SHAPE, dtype=torch.float64, generator=generator)
    model = model.double().eval()
    return float((model(a) + model(b) - model(torch.zeros_like(a)) - model(a + b)).abs().max().detach())


@pytest.mark.parametrize(
    "options",
    [{"pool": "average"}, {"pool": "none"}, {"pool": "average", "batch_norm": True}],
)
def test_a_convnet_with_average_pooling_and_no_activation_is_affine(options):
    assert _deviation_from_affine(ConvNet(MNIST_SHAPE, 10, channels=(4, 5), activation="none", **options)) < 1e-12


def test_an_mlp_without_activation_is_affine():
    assert _deviation_from_affine(MLP(MNIST_SHAPE, 10, activation="none")) < 1e-12


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "sigmoid"])
def test_any_activation_and_max_pooling_make_a_network_non_affine(name):
    assert _deviation_from_affine(ConvNet(MNIST_SHAPE, 10, channels=(4,), pool="average", activation=name)) > 1e-3
    assert _deviation_from_affine(ConvNet(MNIST_SHAPE, 10, channels=(4,), hidden=(), activation="none")) > 1e-3
    assert _deviation_from_affine(MLP(MNIST_SHAPE, 10, activation=name)) > 1e-3


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("relu", lambda x: x.clamp(min=0)),
        ("leaky_relu", lambda x: torch.where(x < 0, x / 100, x)),
        ("tanh", lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp())),
        ("sigmoid", lambda x: 1 / (1 + (-x).exp())),
        ("none", lambda x: x),
    ],
)
def test_each_activation_equals_its_formula(name, formula):
    x = torch.linspace(-4, 4, 41, dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name]()(x), formula(x))


def _dropout_layers(model: nn.Module) -> list[tuple[str, float]]:
    """Type of the previous layer and rate, for each dropout layer in order."""
    layers = list(model.net)
    return [(type(a).__name__, b.p) for a, b in pairwise(layers) if isinstance(b, nn.Dropout)]


def test_dropout_follows_each_hidden_layer_and_each_stage():
    assert _dropout_layers(MLP(MNIST_SHAPE, 10, hidden=(8, 8), dropout=0.3)) == [("ReLU", 0.3)] * 2
    model = ConvNet(MNIST_SHAPE, 10, channels=(2, 3), hidden=(8,), conv_dropout=0.2, dropout=0.4)
    assert _dropout_layers(model) == [("MaxPool2d", 0.2), ("MaxPool2d", 0.2), ("ReLU", 0.4)]
    assert _dropout_layers(ConvNet(MNIST_SHAPE, 10, batch_norm=True)) == _dropout_layers(MLP(MNIST_SHAPE, 10)) == []


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
@pytest.mark.parametrize(("build", "key"), [(MLP, "dropout"), (ConvNet, "dropout"), (ConvNet, "conv_dropout")])
def test_the_error_for_a_dropout_rate_out_of_range_names_its_key(build, key, rate):
    with pytest.raises(ValueError, match=rf"model\.{key} is {rate}"):
        build(MNIST_SHAPE, 10, **{key: rate})


@pytest.mark.parametrize("kernels", [(), (5,), (5, 3, 1)])
def test_the_number_of_kernel_sizes_must_equal_the_number_of_stages(kernels):
    with pytest.raises(ValueError, match=rf"model\.kernel_size has {len(kernels)} entries for 2 model\.channels"):
        ConvNet(MNIST_SHAPE, 10, channels=(2, 3), kernel_size=kernels)


@pytest.mark.parametrize("pool", ["max", "average"])
def test_too_many_pooling_stages_for_the_image_size_are_an_error(pool):
    ConvNet(MNIST_SHAPE, 10, channels=(2,) * 4, pool=pool)
    with pytest.raises(ValueError, match=r"model\.channels has too many stages for images of \(28, 28\)"):
        ConvNet(MNIST_SHAPE, 10, channels=(2,) * 5, pool=pool)


def test_without_pooling_any_number_of_stages_is_accepted():
    model = ConvNet(MNIST_SHAPE, 10, channels=(1,) * 8, kernel_size=3, pool="none", hidden=())
    assert model(torch.zeros(1, *MNIST_SHAPE)).shape == (1, 10)

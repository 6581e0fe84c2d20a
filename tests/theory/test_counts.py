"""Parameters, multiply-adds and output sizes: from formulas, and from torch's layers.

The numbers are those of the reports that litlab reproduces. A comment marks each misprint in a report.
Layers are on torch's "meta" device, which has shapes but no data.
"""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from modules.convnet import ConvNet

SMALL = st.integers(1, 6)


def conv_parameters(n_in: int, n_out: int, kernel: int) -> int:
    """Each of n_out filters has kernel * kernel weights for each input channel, and one bias."""
    return n_out * (n_in * kernel * kernel + 1)


def fc_parameters(n_in: int, n_out: int) -> int:
    """Each of n_out units has one weight for each input, and one bias."""
    return n_out * (n_in + 1)


def output_side(n: int, kernel: int, padding: int = 0, stride: int = 1) -> int:
    """floor((n + 2 padding - kernel) / stride) + 1."""
    return (n + 2 * padding - kernel) // stride + 1


def conv_multiply_adds(n_in: int, n_out: int, kernel: int, side: int) -> int:
    """Each of n_out * side * side output values has kernel * kernel * n_in products; biases are not counted."""
    return kernel * kernel * n_in * n_out * side * side


def count_parameters(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())


def count_multiply_adds(layer: nn.Module, *shape: int) -> int:
    """Half of torch's count, which counts a multiplication and an addition as two operations."""
    with FlopCounterMode(display=False) as counter:
        layer(torch.empty(1, *shape, device="meta"))
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2


@given(n_in=SMALL, n_out=SMALL, kernel=SMALL)
def test_parameters_of_any_convolution_and_any_fully_connected_layer(n_in, n_out, kernel):
    """A convolution has n_out (n_in k^2 + 1) parameters, a fully connected layer n_out (n_in + 1)."""
    assert count_parameters(nn.Conv2d(n_in, n_out, kernel, device="meta")) == conv_parameters(n_in, n_out, kernel)
    assert count_parameters(nn.Linear(n_in, n_out, device="meta")) == fc_parameters(n_in, n_out)


def test_96_filters_of_5x5_on_rgb_have_7296_parameters():
    """With biases there are 96 (3 * 25 + 1) = 7,296. The printed sum 96 * 25 + 96 * 3 is 2,688, printed as 1,728."""
    assert conv_parameters(3, 96, kernel=5) == count_parameters(nn.Conv2d(3, 96, 5, device="meta")) == 7_296
    assert 96 * 25 + 96 * 3 == 2_688


def test_a_fully_connected_layer_on_4x4x256_has_16781312_parameters():
    """From 4x4x256 values to as many, a fully connected layer has 4,096 * 4,097 = 16,781,312 parameters."""
    n = 4 * 4 * 256
    assert fc_parameters(n, n) == count_parameters(nn.Linear(n, n, device="meta")) == 16_781_312


def deep_mnist() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(3136, 1024), nn.ReLU(), nn.Linear(1024, 10)),
    )


def one_conv() -> nn.Sequential:
    """An even kernel keeps the size if one side is padded with one more zero than the other."""
    return nn.Sequential(nn.ZeroPad2d((3, 4, 3, 4)), nn.Conv2d(1, 8, 8), nn.Flatten(), nn.Linear(6272, 10))


def small_deep_mnist() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 7, padding=3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 26, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(1274, 1024), nn.ReLU(), nn.Linear(1024, 10)),
    )


def cifar_base() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(1024, 1000), nn.ReLU(), nn.Linear(1000, 10)),
    )


NETWORKS = [
    pytest.param(
        deep_mnist,
        (1, 28),
        [
            conv_parameters(1, 32, 5),
            conv_parameters(32, 64, 5),
            fc_parameters(7 * 7 * 64, 1024),
            fc_parameters(1024, 10),
        ],
        [832, 51_264, 3_212_288, 10_250],
        3_274_634,
        id="deep-mnist",
    ),
    pytest.param(
        one_conv,
        (1, 28),
        [conv_parameters(1, 8, 8), fc_parameters(28 * 28 * 8, 10)],
        [520, 62_730],
        63_250,
        id="one-conv",
    ),
    pytest.param(  # printed: 1,326,586
        small_deep_mnist,
        (1, 28),
        [
            conv_parameters(1, 16, 7),
            conv_parameters(16, 26, 5),
            fc_parameters(7 * 7 * 26, 1024),
            fc_parameters(1024, 10),
        ],
        [800, 10_426, 1_305_600, 10_250],
        1_327_076,
        id="small-deep-mnist",
    ),
    pytest.param(  # printed: 1,088,418
        cifar_base,
        (3, 32),
        [
            *(conv_parameters(3, 32, 5), conv_parameters(32, 64, 5), conv_parameters(64, 64, 5)),
            *(fc_parameters(4 * 4 * 64, 1000), fc_parameters(1000, 10)),
        ],
        [2_432, 51_264, 102_464, 1_025_000, 10_010],
        1_191_170,
        id="cifar-base",
    ),
]


@pytest.mark.parametrize(("build", "image", "by_formula", "layers", "total"), NETWORKS)
def test_parameters_of_the_networks_of_the_reports(
    build: Callable[[], nn.Sequential], image, by_formula, layers, total
):
    """The formulas, torch's layers and the correct numbers agree for each layer, and the layers fit together."""
    channels, side = image
    with torch.device("meta"):
        network = build()
    counted = [count_parameters(layer) for layer in network if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert by_formula == counted == layers
    assert sum(layers) == count_parameters(network) == total
    assert network(torch.empty(1, channels, side, side, device="meta")).shape == (1, 10)


def test_the_misprint_of_small_deep_mnist_is_its_first_convolution():
    """The printed 1,326,586 is the correct total with 310 instead of 16 * 49 + 16 = 800 for the first convolution."""
    assert 1_327_076 - conv_parameters(1, 16, 7) + 310 == 1_326_586


def test_the_misprint_of_cifar_base_uses_the_image_side_as_kernel_and_one_input_channel():
    """The printed 1,088,418 has kernels of 32, 16 and 8, the sides of the images, on one channel, not 3, 32 and 64."""
    misprinted = [conv_parameters(1, 32, 32), conv_parameters(1, 64, 16), conv_parameters(1, 64, 8)]
    assert sum(misprinted) + fc_parameters(1024, 1000) + fc_parameters(1000, 10) == 1_088_418


def test_cifar_base_has_23_8_parameters_per_training_image_not_22000():
    """1,191,170 parameters for 50,000 images are 23.8 per image; the printed 1,088,418 would be 21.8 (not "22000")."""
    assert round(1_191_170 / 50_000, 1) == 23.8
    assert round(1_088_418 / 50_000, 1) == 21.8


def test_the_minimal_network_has_21_times_the_parameters_of_one_convolution():
    """small-deep-mnist is called minimal; one-conv, whose published accuracy is higher, has 1/21 of its parameters."""
    with torch.device("meta"):
        ratio = count_parameters(small_deep_mnist()) / count_parameters(one_conv())
    assert round(ratio, 1) == 21.0


def test_pooling_saves_parameters_of_the_fully_connected_layer():
    """Two poolings of size 2 leave 7x7 of 28x28 pixels, so that the layer behind has 1/16 of the weights."""
    networks = [ConvNet((1, 28, 28), 10, channels=(16, 32), hidden=(64,), pool=pool) for pool in ("max", "none")]
    convolutions = conv_parameters(1, 16, 5) + conv_parameters(16, 32, 5)
    by_formula = [convolutions + fc_parameters(32 * side**2, 64) + fc_parameters(64, 10) for side in (7, 28)]
    assert [count_parameters(network) for network in networks] == by_formula == [114_314, 1_619_594]


def test_10000_images_of_1000_classes_give_10000000_equations():
    """Each image gives one equation for each class: the output of that class is 1 or 0."""
    images, classes = 10_000, 1_000
    targets = F.one_hot(torch.arange(images) % classes, classes)
    assert targets.numel() == 10_000_000


@given(n=st.integers(1, 40), kernel=SMALL, padding=st.integers(0, 3), stride=st.integers(1, 4))
def test_output_sizes_of_convolution_and_pooling(n, kernel, padding, stride):
    """Both have floor((n + 2p - k) / s) + 1 rows; pooling of size 2 halves the side, rounded down."""
    n = n + kernel
    layer = nn.Conv2d(1, 1, kernel, padding=padding, stride=stride, device="meta")
    side = output_side(n, kernel, padding, stride)
    assert layer(torch.empty(1, 1, n, n, device="meta")).shape[2:] == (side, side)
    padding = min(padding, kernel // 2)  # torch allows at most half a window of padding
    pool = nn.MaxPool2d(kernel, stride=stride, padding=padding)
    side = output_side(n, kernel, padding, stride)
    assert pool(torch.empty(1, 1, n, n, device="meta")).shape[2:] == (side, side)
    assert output_side(n, 2, stride=2) == n // 2


@given(kernel=st.integers(0, 4).map(lambda half: 2 * half + 1), n=st.integers(1, 40))
def test_padding_by_half_a_kernel_keeps_the_size(kernel, n):
    """An odd kernel keeps the size with (k - 1) / 2 zeros around the image."""
    layer = nn.Conv2d(1, 1, kernel, padding="same", device="meta")
    assert output_side(n, kernel, padding=(kernel - 1) // 2) == n
    assert layer(torch.empty(1, 1, n, n, device="meta")).shape[2:] == (n, n)


@given(n=st.integers(7, 300))
def test_multiply_adds_of_one_7x7(n):
    """One 7x7 convolution of an n x n image costs 49 (n - 6)^2 multiply-adds."""
    layer = nn.Conv2d(1, 1, 7, bias=False, device="meta")
    assert count_multiply_adds(layer, 1, n, n) == conv_multiply_adds(1, 1, 7, output_side(n, 7)) == 49 * (n - 6) ** 2


@given(n=st.integers(7, 300))
def test_multiply_adds_of_two_layers_add_up(n):
    """5x5 and then 3x3 costs 25 (n - 4)^2 + 9 (n - 6)^2: costs add up, and do not multiply as stated in the report."""
    layers = nn.Sequential(nn.Conv2d(1, 1, 5, bias=False), nn.Conv2d(1, 1, 3, bias=False)).to("meta")
    first, second = 25 * (n - 4) ** 2, 9 * (n - 6) ** 2
    assert conv_multiply_adds(1, 1, 5, output_side(n, 5)) == first
    assert conv_multiply_adds(1, 1, 3, output_side(output_side(n, 5), 3)) == second
    assert count_multiply_adds(layers, 1, n, n) == first + second != first * second


def test_5x5_and_3x3_have_34_weights_and_7x7_has_49():
    """With the same receptive field, 5x5 and then 3x3 has 25 + 9 = 34 weights, one 7x7 has 49."""
    seven, five, three = (count_parameters(nn.Conv2d(1, 1, kernel, bias=False)) for kernel in (7, 5, 3))
    assert (seven, five + three) == (49, 34)


@given(n=st.integers(7, 300))
def test_multiply_adds_of_three_3x3(n):
    """Three 3x3 convolutions cost 9 ((n - 2)^2 + (n - 4)^2 + (n - 6)^2)."""
    layers = nn.Sequential(*(nn.Conv2d(1, 1, 3, bias=False) for _ in range(3))).to("meta")
    assert count_multiply_adds(layers, 1, n, n) == 9 * ((n - 2) ** 2 + (n - 4) ** 2 + (n - 6) ** 2)


def test_two_small_kernels_are_cheaper_than_one_large_from_14_pixels_on():
    """One 7x7 costs more than 5x5 and 3x3 if and only if n >= 14; on smaller images 5x5 fits at too many positions."""
    for n in range(7, 1000):
        assert (49 * (n - 6) ** 2 > 25 * (n - 4) ** 2 + 9 * (n - 6) ** 2) == (n >= 14)


@given(n_in=SMALL, n_out=SMALL, kernel=SMALL, side=SMALL, stride=st.integers(1, 3))
def test_multiply_adds_of_any_convolution(n_in, n_out, kernel, side, stride):
    """A convolution costs k^2 n_in multiply-adds for every output value."""
    n = kernel + stride * (side - 1)
    layer = nn.Conv2d(n_in, n_out, kernel, stride=stride, device="meta")
    assert output_side(n, kernel, stride=stride) == side
    assert count_multiply_adds(layer, n_in, n, n) == conv_multiply_adds(n_in, n_out, kernel, side)

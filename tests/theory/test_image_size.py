"""What a convolutional network does with images of another size, and fully connected layers as convolutions.

Shapes: B examples, C channels, HxW image, K classes.
"""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(1, 4)
assert_equal = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


def as_convolution(layer: nn.Linear, channels: int, side: int) -> nn.Conv2d:
    """Return the layer as a convolution whose kernel has the size of the image; each unit is a filter."""
    convolution = nn.Conv2d(channels, layer.out_features, side)
    convolution.weight.data = layer.weight.detach().view(layer.out_features, channels, side, side)
    convolution.bias.data = layer.bias.detach()
    return convolution


@given(seed=SEEDS, B=SIDES, C=SIDES, side=SIDES, K=SIDES)
def test_a_fully_connected_layer_is_a_convolution_with_a_kernel_of_the_size_of_the_image(seed, B, C, side, K):
    """The same weights give the same K values, as a map of 1x1 pixel with K channels."""
    torch.manual_seed(seed)
    layer, images = nn.Linear(C * side * side, K), torch.randn(B, C, side, side)
    output = as_convolution(layer, C, side)(images)
    assert output.shape == (B, K, 1, 1)
    assert_equal(output.flatten(1), layer(images.flatten(1)))


def test_the_output_for_32_pixels_with_padding_2_and_a_kernel_of_5_has_32_not_47():
    """The size is (32 + 2 * 2 - 5) / 1 + 1 = 32; the printed formula gives 47."""
    assert (32 + 2 * 2 - 5) // 1 + 1 == 32
    assert nn.Conv2d(3, 32, 5, padding=2)(torch.zeros(1, 3, 32, 32)).shape == (1, 32, 32, 32)


def convolutions() -> nn.Sequential:
    """Return convolutions and poolings as in cifar-base, with fewer channels: an eighth of the side remains."""
    stages = [(nn.Conv2d(n_in, 4, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)) for n_in in (3, 4, 4)]
    return nn.Sequential(*(layer for stage in stages for layer in stage))


def test_the_convolutional_layers_can_be_used_for_a_larger_image():
    """Their weights do not depend on the size of the image; those of the fully connected layer do."""
    stages, layer = convolutions(), nn.Linear(4 * 4 * 4, 10)
    small, large = stages(torch.zeros(1, 3, 32, 32)), stages(torch.zeros(1, 3, 64, 64))
    assert small.shape == (1, 4, 4, 4)
    assert large.shape == (1, 4, 8, 8)
    assert layer(small.flatten(1)).shape == (1, 10)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer(large.flatten(1))


def test_the_output_of_a_fully_convolutional_network_for_a_larger_image_is_a_map():
    """With 64x64 instead of 32x32 pixels it has 5x5 times K values: those of the network for each crop of 4x4 features.

    It is not the same output, K values for the whole image.
    """
    torch.manual_seed(0)
    stages, layer = convolutions(), nn.Linear(4 * 4 * 4, 10)
    features = stages(torch.randn(1, 3, 64, 64))
    output = as_convolution(layer, 4, 4)(features)
    assert output.shape == (1, 10, 5, 5)
    for i in range(5):
        for j in range(5):
            crop: Tensor = features[:, :, i : i + 4, j : j + 4]
            assert_equal(output[:, :, i, j], layer(crop.flatten(1)))

"""Filters and activations."""

import json

import pytest
import torch
from torch import nn

from pipelines.explanation.images import Images
from pipelines.explanation.layers import _map_statistics, _panels, activations, filters
from pipelines.explanation.settings import ImageSelection
from pipelines.explanation.target import Target
from pipelines.runtime.errors import UserError


def test_a_weight_of_0_is_grey_and_signs_are_kept():
    weights = torch.tensor([[[[-2.0, 0.0], [1.0, 2.0]]], [[[0.0, 0.0], [0.1, 0.0]]]])
    shown, columns = _panels(weights, as_images=True)
    assert columns == 16
    torch.testing.assert_close(shown[0][0], torch.tensor([[0.0, 0.5], [0.75, 1.0]]))
    torch.testing.assert_close(shown[1][0], torch.tensor([[0.5, 0.5], [1.0, 0.5]]))


def test_planes_of_later_filters_are_drawn_in_a_row_for_each_filter():
    weights = torch.randn(40, 20, 3, 3, generator=torch.Generator().manual_seed(0))
    shown, columns = _panels(weights, as_images=False)
    assert (len(shown), columns) == (256, 16)
    expected = weights[2, 5] / weights[2].abs().max() / 2 + 0.5
    torch.testing.assert_close(shown[2 * 16 + 5][0], expected)


def test_the_numbers_of_filters_are_norms_of_the_weights(explain, target):
    outcome = explain("filters", "--layer", "conv1")
    assert outcome.code == 0, outcome.err
    numbers = json.loads(next(outcome.folder.glob("filters-*-conv1.json")).read_text())
    assert numbers["shape"] == [16, 1, 5, 5]
    norms = target.layer("conv1").weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(torch.tensor(numbers["norms"]), norms)


def test_the_numbers_of_activations_are_statistics_of_the_layers_output(explain, target):
    outcome = explain("activations", "--image", "12")
    assert outcome.code == 0, outcome.err
    layers = json.loads(next(outcome.folder.glob("*.json")).read_text())["layers"]
    assert list(layers) == ["conv1", "conv2"]
    maps = target.activations("conv2", target.test_set()[0][12:13] / 255)[0]
    assert layers["conv2"]["channels"] == 32
    assert layers["conv2"]["max"] == pytest.approx(float(maps.max()))
    assert layers["conv2"]["never_positive"] == int((nn.functional.relu(maps).sum((1, 2)) == 0).sum())


def test_a_channel_of_zeros_is_counted_as_never_positive():
    maps = torch.stack([torch.zeros(2, 2), torch.tensor([[-1.0, 0.0], [0.0, 3.0]])])
    assert _map_statistics(maps) == {
        "channels": 2,
        "size": [2, 2],
        "min": -1.0,
        "mean": 0.25,
        "max": 3.0,
        "positive_share": 0.125,
        "never_positive": 1,
    }


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["filters", "--layer", "fc1"], "a Linear has no filters"),
        (["filters", "--layer", "conv7"], "no layer 'conv7'"),
        (["activations", "--layer", "fc1"], "has no rows and columns"),
    ],
)
def test_an_error_names_the_layer_that_cannot_be_drawn(explain, argv, message):
    outcome = explain(*argv)
    assert outcome.code == 2
    assert message in outcome.err


def test_a_network_without_a_convolution_has_no_activations_to_draw_by_default():
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    names = tuple(map(str, range(10)))
    dense = Target("dense", "dense", None, network, nn.Identity(), (1, 28, 28), names, None, torch.device("cpu"))
    images = Images(torch.zeros(1, 1, 28, 28), [None], ["image"], ImageSelection())
    with pytest.raises(UserError, match="dense has no convolution: name a layer whose output has rows and columns"):
        next(activations(dense, images))
    with pytest.raises(UserError, match="dense has no layer 'conv1'"):
        filters(dense)

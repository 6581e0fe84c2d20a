"""Networks of torchvision and timm: input, head, weights, and the layers that they consist of."""

import pytest
import torch
from torch import nn

from modules.architecture import load_into, replace_heads
from modules.layer_groups import layer_groups
from modules.networks import find_network


@pytest.mark.parametrize(
    ("name", "size", "head"),
    [
        ("squeezenet1_1", 224, "classifier.1"),
        ("mobilenet_v3_small", 224, "classifier.3"),
        ("inception_v3", 299, "fc"),
        ("efficientnet_b1", 240, "classifier.1"),
    ],
)
def test_a_network_of_torchvision_has_the_input_of_its_weights_and_a_new_head(name, size, head):
    architecture = find_network(name)
    network = architecture.build().eval()
    assert architecture.input_format.size == size
    assert architecture.heads(network) == [head]
    assert architecture.source.startswith("https://download.pytorch.org/models/")
    assert "jellyfish" in architecture.categories
    replace_heads(network, [head], 3)
    assert network(torch.rand(1, 3, size, size)).shape == (1, 3)


def test_the_name_of_a_published_file_selects_the_input_of_its_weights(tmp_path):
    assert find_network("resnet50").input_format.size == 224
    assert "jellyfish" in find_network("resnet50", None, tmp_path / "resnet50-0676ba61.pth").categories
    assert find_network("vit_b_16", None, tmp_path / "vit_b_16_swag-9ac1b537.pth").input_format.size == 384


def test_auxiliary_heads_in_a_file_of_weights_are_left_out():
    architecture = find_network("googlenet")
    network = architecture.build()
    state = network.state_dict() | {"aux1.conv.conv.weight": torch.zeros(1)}
    load_into(network, state, but=["fc"], source="file")
    with pytest.raises(ValueError, match=r"file: not the weights of GoogLeNet: it has the unknown weights other"):
        load_into(network, state | {"other": torch.zeros(1)}, but=["fc"], source="file")


def test_missing_weights_are_an_error_that_names_the_address_and_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no server answers
    with pytest.raises(
        ValueError, match=r"from https://download\.pytorch\.org/models/resnet18-\S+\.pth .*put the file"
    ):
        find_network("resnet18").download()


@pytest.mark.parametrize(("name", "count"), [("resnet18", 10), ("vit_b_32", 14), ("squeezenet1_1", 10)])
def test_the_layers_of_a_network_are_its_blocks_and_have_each_parameter_once(name, count):
    network = find_network(name).build()
    groups = layer_groups(network)
    assert len(groups) == count
    parameters = [id(parameter) for group in groups for parameter in group]
    assert sorted(parameters) == sorted(map(id, network.parameters()))


def test_the_entries_of_nested_containers_are_layers():
    blocks = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), nn.Linear(2, 2))
    assert [len(group) for group in layer_groups(blocks)] == [2, 4, 2]


def test_a_network_of_timm_has_the_input_of_its_weights_and_its_own_head():
    pytest.importorskip("timm")
    architecture = find_network("timm/resnet10t.c3_in1k")
    network = architecture.build().eval()
    assert architecture.input_format.size == 176
    assert architecture.input_format.interpolation == "bicubic"
    assert architecture.heads(network) == ["fc"]
    assert architecture.source == "https://huggingface.co/timm/resnet10t.c3_in1k"
    assert any("jellyfish" in name for name in architecture.categories)


def test_a_network_of_timm_is_found_without_its_prefix_and_both_heads_of_a_distilled_one_are_replaced():
    pytest.importorskip("timm")
    architecture = find_network("deit_tiny_distilled_patch16_224")
    network = architecture.build(image_size=64).eval()
    heads = architecture.heads(network)
    assert heads == ["head", "head_dist"]
    replace_heads(network, heads, 3)
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 3)


def test_an_unknown_tag_of_timm_names_those_that_exist():
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"those of resnet10t are resnet10t\.c3_in1k"):
        find_network("timm/resnet10t.nothing")

"""Backbone: preprocessing, weights to start from, frozen parts, learning rates per layer."""

import pytest
import torch
from torch import nn

from datamodules.digits import Digits
from modules.backbone import Backbone
from modules.networks import find_network


@pytest.fixture
def unit_digits() -> Digits:
    """100 training digits with pixels in [0, 1], in batches of 50."""
    return Digits(n_train=100, n_val=50, batch_size=50, normalization="unit")


def conv_of(model: Backbone) -> nn.Conv2d:
    conv = model.net.network[0][0]
    assert isinstance(conv, nn.Conv2d)
    return conv


def norm_of(model: Backbone) -> nn.BatchNorm2d:
    norm = model.net.network[0][1]
    assert isinstance(norm, nn.BatchNorm2d)
    return norm


def test_images_are_resized_and_normalised_as_the_weights_expect(tiny_network):
    model = Backbone(name=tiny_network, num_classes=3, pretrained=False)
    inputs = model.net.preprocess(torch.full((2, 1, 40, 28), 0.75))
    assert inputs.shape == (2, 3, 16, 16)
    torch.testing.assert_close(inputs, torch.ones(2, 3, 16, 16))  # (0.75 - 0.5) / 0.25


def test_preprocessing_agrees_with_torchvision(tmp_path):
    preset = find_network("resnet18")
    model = Backbone(name="resnet18", num_classes=3, pretrained=False)
    from torchvision.models import ResNet18_Weights

    image = torch.rand(1, 3, 256, 256)
    expected = ResNet18_Weights.DEFAULT.transforms(resize_size=224)(image)  # no crop
    torch.testing.assert_close(model.net.preprocess(image), expected, atol=1e-5, rtol=0)
    assert preset.input_format.size == 224


def test_the_head_has_the_classes_of_the_data_and_an_image_size_can_be_given(tiny_network):
    model = Backbone(name=tiny_network, num_classes=7, pretrained=False, image_size=8, arguments={"width": 6})
    assert model(torch.rand(2, 3, 20, 20)).shape == (2, 7)
    assert conv_of(model).out_channels == 6
    assert model.net.preprocess(torch.rand(2, 3, 20, 20)).shape[2:] == (8, 8)


def test_published_weights_are_loaded_when_a_training_starts_but_not_over_loaded_ones(
    tiny_network, unit_digits, make_trainer
):
    published = find_network(tiny_network).download()["0.0.weight"]
    model = Backbone(name=tiny_network, num_classes=10, freeze="backbone")
    assert not torch.equal(conv_of(model).weight, published)
    make_trainer(max_epochs=1).fit(model, datamodule=unit_digits)
    assert torch.equal(conv_of(model).weight, published)

    other = Backbone(name=tiny_network, num_classes=10, freeze="backbone")
    own = conv_of(other).weight.clone()
    other.load_state_dict(other.state_dict())
    make_trainer(max_epochs=1).fit(other, datamodule=unit_digits)
    assert torch.equal(conv_of(other).weight, own)


def test_loading_weights_draws_no_random_numbers(tiny_network):
    model = Backbone(name=tiny_network, num_classes=10)
    before = torch.get_rng_state()
    model.load_start()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_of_a_file_are_loaded_except_for_the_head(tiny_network, tmp_path, suffix):
    network = find_network(tiny_network).build()
    file = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save({"state_dict": network.state_dict()}, file)
    else:
        pytest.importorskip("safetensors.torch").save_file(network.state_dict(), file)
    model = Backbone(name=tiny_network, num_classes=3, weights=str(file))
    model.load_start()
    assert torch.equal(conv_of(model).weight, network[0][0].weight)
    assert model(torch.rand(1, 3, 16, 16)).shape == (1, 3)


def test_weights_of_another_network_and_files_that_are_no_weights_are_refused(tiny_network, tmp_path):
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("no weights")
    torch.save(find_network(tiny_network, {"width": 5}).build().state_dict(), tmp_path / "wide.pth")
    for name, message in {
        "other": "it lacks 0.0.weight",
        "list": "no dictionary of tensors",
        "text": "cannot be read",
        "wide": "it has another shape of 0.0.weight",
    }.items():
        model = Backbone(name=tiny_network, num_classes=3, weights=str(tmp_path / f"{name}.pth"))
        with pytest.raises(ValueError, match=rf"{name}\.pth: .*{message}"):
            model.load_start()
    with pytest.raises(FileNotFoundError, match=r"none\.pth: no such file"):
        Backbone(name=tiny_network, num_classes=3, weights=str(tmp_path / "none.pth")).load_start()


def test_a_frozen_backbone_keeps_its_weights_and_statistics(tiny_network, unit_digits, make_trainer):
    torch.manual_seed(0)
    model = Backbone(name=tiny_network, num_classes=10, pretrained=False, freeze="backbone")
    before = {key: value.clone() for key, value in model.net.network.state_dict().items()}
    make_trainer(max_epochs=2).fit(model, datamodule=unit_digits)
    changed = {key for key, value in model.net.network.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"4.weight", "4.bias"}


def test_a_backbone_that_is_frozen_for_an_epoch_is_trained_from_then_on(tiny_network, unit_digits, make_trainer):
    torch.manual_seed(0)
    model = Backbone(name=tiny_network, num_classes=10, pretrained=False, freeze=1)
    conv, mean = conv_of(model).weight.clone(), norm_of(model).running_mean.clone()
    make_trainer(max_epochs=1).fit(model, datamodule=unit_digits)
    assert torch.equal(conv_of(model).weight, conv)
    assert torch.equal(norm_of(model).running_mean, mean)
    make_trainer(max_epochs=2).fit(model, datamodule=unit_digits)
    assert not torch.equal(conv_of(model).weight, conv)
    assert not torch.equal(norm_of(model).running_mean, mean)


def test_learning_rates_fall_from_the_head_to_the_first_layer(tiny_network):
    model = Backbone(name=tiny_network, num_classes=10, pretrained=False, lr_decay=0.5)
    optimizer = model.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Adam)
    assert [group["lr"] for group in optimizer.param_groups] == [0.00025, 0.0005, 0.001]
    assert [len(group["params"]) for group in optimizer.param_groups] == [4, 4, 2]  # a norm belongs to its convolution
    assert optimizer.param_groups[0]["params"][0] is conv_of(model).weight


def test_normalised_images_are_refused_unless_preprocessing_is_off(tiny_network, make_trainer):
    normalised = Digits(n_train=100, n_val=50)
    with pytest.raises(ValueError, match=r"set data\.normalization to unit"):
        make_trainer(max_epochs=1).fit(Backbone(name=tiny_network, num_classes=10), datamodule=normalised)
    model = Backbone(
        name="modules.mlp.MLP", num_classes=10, pretrained=False, preprocess=False, arguments=MLP_ARGUMENTS
    )
    make_trainer(max_epochs=1).fit(model, datamodule=normalised)
    assert isinstance(model.net.preprocess, nn.Identity)


MLP_ARGUMENTS = {"input_shape": [1, 28, 28], "num_classes": 4, "hidden": [8]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet1888"}, "did you mean resnet18"),
        ({"name": "nowhere.Net"}, "No module named 'nowhere'"),
        ({"name": "torch.nn.Nothing"}, r"torch\.nn has no class or function Nothing"),
        ({"name": "tiny_network.no_network"}, "returns a Tensor"),
        ({"name": "tiny_network.build", "arguments": {"depth": 3}}, "unexpected keyword argument 'depth'"),
        ({"weights": "a.pth", "pretrained": False}, "give only one of them"),
        ({"freeze": "all"}, "it must be backbone, none or a number of epochs"),
        ({"freeze": -1}, "it must be backbone, none or a number of epochs"),
        ({"lr_decay": 0.0}, "above 0 and at most 1"),
        ({"lr_decay": 0.5, "freeze": "backbone"}, "only the head is trained"),
        ({"image_size": 0}, "it must be 1 or more"),
        ({"input_shape": (4,)}, "images with 1 or 3 channels"),
    ],
)
def test_wrong_arguments_are_named(tiny_network, arguments, message):
    with pytest.raises(ValueError, match=message):
        Backbone(**{"name": tiny_network, "num_classes": 3, **arguments})


def test_a_network_without_published_weights_must_be_given_some_or_none(tiny_network):
    model = Backbone(name="tiny_network.without_weights", num_classes=3, image_size=1)
    with pytest.raises(ValueError, match=r"has no argument pretrained: set model\.weights to a file"):
        model.load_start()

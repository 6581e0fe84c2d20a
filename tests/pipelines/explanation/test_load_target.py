"""Loading the network to explain, and its properties."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from torchvision import models

from modules.networks import find_network
from pipelines.evaluation.load_run import load_run
from pipelines.explanation.load_target import load_target
from pipelines.runtime.errors import UserError


def test_pixels_in_0_to_1_have_the_logits_of_the_trained_model_for_bytes(target, explained_run):
    uri, run_id = explained_run
    loaded = load_run(run_id, tracking_uri=uri)
    data, model = loaded.data, loaded.model
    images = target.test_set()[0][:50]
    with torch.no_grad():
        expected = model(data.normalize(images))
    torch.testing.assert_close(target.logits(images / 255), expected)
    torch.testing.assert_close(target.pixels_to_logits()(images / 255), expected)
    torch.testing.assert_close(target.probabilities(images / 255), expected.softmax(1))


def test_only_the_input_has_a_gradient_and_the_network_is_in_evaluation_mode(target):
    pixels = torch.rand(2, *target.input_shape, requires_grad=True)
    target.logits(pixels).sum().backward()
    assert pixels.grad.abs().sum() > 0
    assert not any(value.requires_grad or value.grad is not None for value in target.network.parameters())
    assert not any(module.training for module in target.pixels_to_logits().modules())


def test_layers_have_the_names_that_inspect_prints_and_short_names(target):
    named = dict(target.network.named_modules())
    assert target.layer("conv2") is named["net.3"] is target.layer("net.3")
    assert target.layer("fc1") is named["net.7"]
    with pytest.raises(UserError, match=r"no layer 'conv9'.*did you mean conv.*fc2") as error:
        target.layer("conv9")
    assert "metrics" not in str(error.value)


def test_activations_are_the_output_of_the_layer(target):
    images = target.test_set()[0][:5] / 255
    first = target.layer("conv1")
    torch.testing.assert_close(target.activations("conv1", images), first(target.normalize(images)))
    assert target.activations("fc2", images).equal(target.logits(images))


def test_a_checkpoint_file_gives_the_same_network_as_its_run(target, explained_run, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoints/best.ckpt", "config.yaml"):
        shutil.copy(target.run.file(name), tmp_path / name)
    checkpoint = tmp_path / "checkpoints/best.ckpt"
    alone = load_target(checkpoint=checkpoint)
    pixels = torch.rand(3, *target.input_shape)
    assert alone.logits(pixels).equal(target.logits(pixels))
    assert alone.run is None
    (tmp_path / "config.yaml").rename(tmp_path / "elsewhere.yaml")
    with pytest.raises(UserError, match="-c FILE"):
        load_target(checkpoint=checkpoint)
    elsewhere = load_target(checkpoint=checkpoint, config=tmp_path / "elsewhere.yaml")
    assert elsewhere.logits(pixels).equal(alone.logits(pixels))


def test_a_torchvision_classifier_has_weights_from_a_file_and_classes_from_torchvision(tmp_path):
    torch.manual_seed(0)
    network = models.squeezenet1_1().eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    target = load_target(backbone="squeezenet1_1", weights=tmp_path / "weights.pth")
    pixels = torch.rand(1, 3, 224, 224)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = network((pixels - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(target.logits(pixels.to(target.device)).cpu(), expected, rtol=1e-3, atol=1e-3)
    assert target.classes[107] == "jellyfish"
    assert target.input_shape == (3, 224, 224)
    with pytest.raises(UserError, match="comes without data"):
        target.test_set()


def test_missing_weights_are_named_with_their_url(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        UserError,
        match=r"no weights on this machine.*https://download.pytorch.org/models/alexnet-owt\S+pth, .*--weights",
    ):
        load_target(backbone="alexnet")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "name one network"),
        ({"backbone": "alexnett"}, "--backbone alexnett: no such network; did you mean alexnet"),
        ({"checkpoint": Path("no.ckpt")}, "no.ckpt: no such file"),
        ({"backbone": "alexnet", "checkpoint": Path("x")}, "name one network"),
        ({"backbone": "alexnet", "tracking_uri": "sqlite:///x.db"}, "--tracking_uri: not an option"),
        ({"backbone": "alexnet", "overrides": ["--data.n_val", "3"]}, "--data.n_val: not an option"),
        ({"checkpoint": Path("x"), "weights": Path("y")}, "--weights needs --backbone"),
        ({"run_id": "x", "config": Path("y")}, "-c needs --checkpoint"),
    ],
)
def test_an_error_names_what_cannot_be_loaded(source, message):
    with pytest.raises(UserError, match=message):
        load_target(**source)


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04"], ids=["empty", "text", "cut off"])
def test_a_file_without_weights_is_named(tmp_path, content):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"weights.pth: cannot be read"):
        load_target(backbone="alexnet", weights=tmp_path / "weights.pth")


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"weights.pth: not the weights of alexnet"):
        load_target(backbone="alexnet", weights=tmp_path / "weights.pth")


def test_networks_are_adapted_to_published_weights_as_torchvision_does(tmp_path):
    """The published googlenet expects pixels from -1 to 1, and layers of the published densenet have other names."""
    file = tmp_path / "weights.pth"
    torch.save(models.googlenet(init_weights=False).state_dict(), file)
    assert load_target(backbone="googlenet", weights=file).network.transform_input
    network = models.densenet121()
    old = {
        re.sub(r"(denselayer\d+\.[a-z]+)(\d)", r"\1.\2", name): value for name, value in network.state_dict().items()
    }
    assert old.keys() != network.state_dict().keys()
    torch.save(old, file)
    weights = load_target(backbone="densenet121", weights=file).network.state_dict()
    assert all(weights[name].cpu().equal(value) for name, value in network.state_dict().items())


def test_a_network_by_class_path_brings_its_own_weights_and_numbers_for_classes(tiny_network):
    target = load_target(backbone=tiny_network)
    published = find_network(tiny_network).download()
    assert all(target.network.state_dict()[name].equal(value) for name, value in published.items())
    assert (target.input_shape, target.classes[999]) == ((3, 16, 16), "999")
    torch.testing.assert_close(target.normalize(torch.full((1, 3, 16, 16), 0.75)), torch.ones(1, 3, 16, 16))


def test_a_network_by_class_path_may_name_its_classes(tiny_network):
    target = load_target(backbone=tiny_network.replace("build", "with_labels"))
    assert target.classes[107] == "kind 107"


def test_a_network_of_timm_is_explained_with_weights_from_a_file(tmp_path):
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.pth")
    target = load_target(backbone="timm/test_resnet", weights=tmp_path / "weights.pth")
    assert target.id == "timm-test_resnet"
    assert target.logits(torch.rand(1, *target.input_shape)).shape == (1, 1000)

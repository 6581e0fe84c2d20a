"""The network that is looked at: which one it is, and what may not happen to it."""

import argparse
import re
import shutil

import pytest
import torch
from torchvision import models

from pipelines.evaluation.load_run import load_run
from pipelines.explanation.target import parse
from pipelines.runtime.errors import UserError


def open_(*argv):
    return parse("maximise", [str(token) for token in argv], argparse.ArgumentParser())[0]


def test_pixels_in_0_to_1_give_the_logits_that_the_trained_model_gives_for_bytes(subject, looked_at):
    uri, run_id = looked_at
    loaded = load_run(run_id, tracking_uri=uri)
    data, model = loaded.data, loaded.model
    images = subject.test_set()[0][:50]
    with torch.no_grad():
        expected = model(data.normalize(images))
    torch.testing.assert_close(subject.logits(images / 255), expected)
    torch.testing.assert_close(subject.whole()(images / 255), expected)
    torch.testing.assert_close(subject.probabilities(images / 255), expected.softmax(1))


def test_only_the_input_has_a_gradient_and_the_network_is_in_evaluation_mode(subject):
    pixels = torch.rand(2, *subject.input_shape, requires_grad=True)
    subject.logits(pixels).sum().backward()
    assert pixels.grad.abs().sum() > 0
    assert not any(value.requires_grad or value.grad is not None for value in subject.network.parameters())
    assert not any(module.training for module in subject.whole().modules())


def test_layers_have_the_names_that_inspect_prints_and_short_ones_by_kind_and_order(subject):
    named = dict(subject.network.named_modules())
    assert subject.layer("conv2") is named["net.3"] is subject.layer("net.3")
    assert subject.layer("fc1") is named["net.7"]
    with pytest.raises(UserError, match=r"no layer 'conv9'.*did you mean conv.*fc2") as said:
        subject.layer("conv9")
    assert "metrics" not in str(said.value)


def test_activations_are_the_output_of_the_layer(subject):
    images = subject.test_set()[0][:5] / 255
    first = subject.layer("conv1")
    torch.testing.assert_close(subject.activations("conv1", images), first(subject.normalize(images)))
    assert subject.activations("fc2", images).equal(subject.logits(images))


def test_a_checkpoint_alone_is_the_same_network_as_its_run(subject, looked_at, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoints/best.ckpt", "config.yaml"):
        shutil.copy(subject.run.file(name), tmp_path / name)
    alone = open_("--checkpoint", tmp_path / "checkpoints/best.ckpt")
    pixels = torch.rand(3, *subject.input_shape)
    assert alone.logits(pixels).equal(subject.logits(pixels))
    assert alone.run is None
    (tmp_path / "config.yaml").rename(tmp_path / "elsewhere.yaml")
    with pytest.raises(UserError, match="-c FILE"):
        open_("--checkpoint", tmp_path / "checkpoints/best.ckpt")
    again = open_("--checkpoint", tmp_path / "checkpoints/best.ckpt", "-c", tmp_path / "elsewhere.yaml")
    assert again.logits(pixels).equal(alone.logits(pixels))


def test_a_torchvision_classifier_takes_its_weights_from_a_file_and_its_classes_from_torchvision(tmp_path):
    torch.manual_seed(0)
    network = models.squeezenet1_1().eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    subject = open_("--torchvision", "squeezenet1_1", "--weights", tmp_path / "weights.pth")
    pixels = torch.rand(1, 3, 224, 224)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = network((pixels - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(subject.logits(pixels), expected)
    assert subject.classes[107] == "jellyfish"
    assert subject.input_shape == (3, 224, 224)
    with pytest.raises(UserError, match="comes without data"):
        subject.test_set()


def test_weights_that_are_not_here_are_named_with_the_place_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"alexnet-owt\S+pth: no such file.*https://download.pytorch.org\S+.*--weights"):
        open_("--torchvision", "alexnet")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "name one network"),
        (["--torchvision", "alexnett"], "no such classifier; there are alexnet"),
        (["--checkpoint", "no.ckpt"], "no.ckpt: no such file"),
        (["--torchvision", "alexnet", "--checkpoint", "x"], "name one network"),
        (["--torchvision", "alexnet", "--data.n_val", "3"], "--data.n_val: no option"),
        (["--checkpoint", "x", "--weights", "y"], "--weights goes with --torchvision"),
    ],
)
def test_what_cannot_be_looked_at_is_said(argv, said):
    with pytest.raises(UserError, match=said):
        open_(*argv)


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04"], ids=["empty", "text", "cut off"])
def test_a_file_that_holds_no_weights_is_named(tmp_path, content):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"weights.pth: cannot be read"):
        open_("--torchvision", "alexnet", "--weights", tmp_path / "weights.pth")


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"weights.pth: not the weights of alexnet"):
        open_("--torchvision", "alexnet", "--weights", tmp_path / "weights.pth")


def test_networks_that_torchvision_changes_when_it_loads_weights_are_changed_alike(tmp_path):
    """The published googlenet takes pixels from -1 to 1, and layers of the published densenet have other names."""
    file = tmp_path / "weights.pth"
    torch.save(models.googlenet(init_weights=False).state_dict(), file)
    assert open_("--torchvision", "googlenet", "--weights", file).network.transform_input
    network = models.densenet121()
    old = {
        re.sub(r"(denselayer\d+\.[a-z]+)(\d)", r"\1.\2", name): value for name, value in network.state_dict().items()
    }
    assert old.keys() != network.state_dict().keys()
    torch.save(old, file)
    weights = open_("--torchvision", "densenet121", "--weights", file).network.state_dict()
    assert all(weights[name].equal(value) for name, value in network.state_dict().items())

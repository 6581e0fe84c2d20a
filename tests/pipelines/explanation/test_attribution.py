"""Saliency and Grad-CAM."""

import json

import pytest
import torch
from torch import nn

from pipelines.explanation.attribution import _last_convolution, _map_statistics, gradcam_maps, saliency_maps
from pipelines.explanation.target import Target
from pipelines.runtime.errors import UserError
from pipelines.tracking.store import Store


def test_saliency_of_a_linear_network_is_its_largest_weight_at_each_pixel():
    network = nn.Sequential(nn.Flatten(), nn.Linear(18, 4)).requires_grad_(False)
    weights = network[1].weight.reshape(4, 2, 3, 3)
    maps = saliency_maps(network, torch.rand(3, 2, 3, 3), torch.tensor([2, 0, 3]))
    torch.testing.assert_close(maps, weights[[2, 0, 3]].abs().amax(1))


def test_saliency_is_the_gradient_of_the_logit_and_leaves_the_images_alone(target):
    images, classes = target.test_set()
    pixels, classes = images[:4].float() / 255, classes[:4]
    before, x = pixels.clone(), pixels.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target.logits(x).gather(1, classes[:, None]).sum(), x)
    torch.testing.assert_close(saliency_maps(target.pixels_to_logits(), pixels, classes), gradient.abs().amax(1))
    assert pixels.equal(before)
    assert pixels.grad is None


@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_gradcam_is_the_published_formula(target, layer):
    images, classes = target.test_set()
    pixels, classes = images[:4].float() / 255, classes[:4]
    outputs = []
    handle = target.layer(layer).register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    logits = target.logits(pixels.clone().requires_grad_())
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), outputs[0])
    weighted = (gradient.mean((2, 3), keepdim=True) * outputs[0].detach()).sum(1, keepdim=True).relu()
    expected = nn.functional.interpolate(weighted, (28, 28), mode="bilinear")[:, 0]
    maps = gradcam_maps(target, layer, pixels, classes)
    assert maps.max() > 0
    torch.testing.assert_close(maps, expected)


def test_statistics_of_a_map_are_its_maximum_and_the_share_of_its_highest_tenth():
    map_HW = torch.ones(4, 5)
    map_HW[2, 3], map_HW[1, 1] = 12.0, 10.0
    assert _map_statistics(map_HW) == {"row": 2, "column": 3, "in_top_tenth": pytest.approx(22 / 40)}
    assert _map_statistics(torch.zeros(4, 5))["in_top_tenth"] == 0


def read_numbers(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(next(outcome.folder.glob("*.json")).read_text())


@pytest.mark.parametrize("method", ["saliency", "gradcam"])
def test_the_command_explains_the_class_of_each_image_and_logs_a_child_run(explain, target, explained_run, method):
    outcome = explain(method)  # without --image: the first of each class
    numbers = read_numbers(outcome)
    images, classes = target.test_set()
    indices = [int(torch.nonzero(classes == number)[0]) for number in range(10)]
    pixels = images[indices].float() / 255
    maps = (
        saliency_maps(target.pixels_to_logits(), pixels, torch.arange(10))
        if method == "saliency"
        else gradcam_maps(target, "conv2", pixels, torch.arange(10))
    )
    assert [row["image"] for row in numbers["images"]] == indices
    assert [row["class"] for row in numbers["images"]] == list(target.classes)
    for row, map_HW in zip(numbers["images"], maps, strict=True):
        assert float(map_HW[row["row"], row["column"]]) == pytest.approx(float(map_HW.max()), rel=1e-4)
    uri, run_id = explained_run
    (child,) = [child for child in Store(uri).children(run_id) if child.run_id in outcome.out]
    (picture,) = outcome.folder.glob("*.png")
    assert child.file(f"figures/{picture.name}").read_bytes() == picture.read_bytes()


def test_another_class_can_be_explained(explain, target):
    numbers = read_numbers(explain("saliency", "--image", "12", "--class", "3"))
    (row,) = numbers["images"]
    p = target.probabilities(target.test_set()[0][12:13].float() / 255)[0, 3]
    assert row["class"] == "3"
    assert row["probability"] == pytest.approx(float(p), abs=1e-5)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["gradcam", "--layer", "fc1"], "has no rows and columns"),
        (["gradcam", "--layer", "conv9"], "no layer 'conv9'"),
        (["saliency", "--class", "10"], "0 to 9"),
    ],
)
def test_unknown_layers_and_classes_are_the_users_mistake(explain, argv, message):
    outcome = explain(*argv)
    assert outcome.code == 2
    assert message in outcome.err


def test_gradcam_of_a_network_without_a_convolution_is_refused():
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    names = tuple(map(str, range(10)))
    dense = Target("dense", "dense", None, network, nn.Identity(), (1, 28, 28), names, None, torch.device("cpu"))
    with pytest.raises(UserError, match="dense has no convolution"):
        _last_convolution(dense)

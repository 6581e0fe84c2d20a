"""Activation maximisation."""

import json
import logging

import pytest
import torch
from PIL import Image

from modules.convnet import ConvNet
from pipelines.explanation.ascent import balanced_weight, contrast_stretch, initial_noise, maximise_activation
from pipelines.explanation.maximise import _warn_if_lower
from pipelines.explanation.spectrum import high_frequency_share, mean_amplitudes
from pipelines.explanation.target import Target
from pipelines.explanation.units import select_units, unit_activations
from pipelines.inspection.trace import trace
from pipelines.runtime.errors import UserError

PUBLISHED = {"scale": 1000.0, "weight": 1.0, "lr": 0.33}


@pytest.fixture(scope="module")
def wide():
    """A network on images much larger than the receptive field of its second convolution."""
    torch.manual_seed(0)
    network = ConvNet((1, 28, 28), 10, channels=(4, 6), hidden=(16,), activation="leaky_relu")
    names = tuple(map(str, range(10)))
    return Target("wide", "wide", None, network, torch.nn.Identity(), (1, 28, 28), names, None, torch.device("cpu"))


def test_a_step_is_gradient_descent_on_the_published_objective(target):
    units, start = select_units(target, ["7", "2"]), initial_noise(target, 0)
    x = start.repeat(2, 1, 1, 1).requires_grad_(True)
    loss = (-1000 * target.network(x)[[0, 1], [7, 2]] + x.square().sum((1, 2, 3))).sum()
    (gradient,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(
        maximise_activation(target, units, start, None, **PUBLISHED, steps=1), x.detach() - 0.33 * gradient
    )


def test_a_unit_has_the_same_picture_in_a_batch_and_alone(target):
    start = initial_noise(target, 0)
    units = select_units(target, layer="conv1", units=["0", "3,1,2", "5"])
    together = maximise_activation(target, units, start, None, **PUBLISHED, steps=5)
    alone = torch.cat([maximise_activation(target, [unit], start, None, **PUBLISHED, steps=5) for unit in units])
    torch.testing.assert_close(together, alone)


def test_the_initial_noise_depends_only_on_the_seed(target):
    assert initial_noise(target, 3).equal(initial_noise(target, 3))
    assert not initial_noise(target, 3).equal(initial_noise(target, 4))


@pytest.mark.parametrize("prior", ["norm", "fourier"])
@pytest.mark.parametrize(
    ("layer", "unit", "rows", "columns"),
    [
        ("conv1", "0,0,0", (0, 2), (0, 2)),
        ("conv1", "3,10,27", (8, 12), (25, 27)),
        ("conv2", "0,0,0", (0, 7), (0, 7)),  # rows -2 to 2 of the pooled map, 2 pixels each, and 2 more to each side
        ("conv2", "5,7,13", (8, 21), (20, 27)),
    ],
)
def test_exactly_the_pixels_of_the_receptive_field_change(wide, prior, layer, unit, rows, columns):
    start = initial_noise(wide, 0)
    mean = None if prior == "norm" else mean_amplitudes(torch.rand(5, 1, 28, 28))
    (named,) = select_units(wide, layer=layer, units=[unit])
    (picture,) = maximise_activation(wide, [named], start, mean, **PUBLISHED, steps=3)
    expected = torch.zeros(28, 28, dtype=torch.bool)
    expected[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = True
    assert (picture != start)[0].equal(expected)


def test_the_receptive_field_is_the_one_that_inspect_prints_and_where_the_gradient_is_not_0(wide):
    (row,) = [row for row in trace(wide.network, (1, 28, 28)).layers if row.name == "net.3"]
    assert row.receptive_field == (14, 14)
    first, last = row.reach.first, row.reach.last
    for position in [(0, 0), (6, 6), (13, 2)]:
        (unit,) = select_units(wide, layer="conv2", units=[",".join(map(str, (1, *position)))])
        x = torch.randn(200, 1, 28, 28, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
        unit_activations(wide, [unit] * 200, x).sum().backward()
        dependent = torch.nonzero(x.grad.abs().sum((0, 1)))
        index = (slice(None), 1, *position)
        assert dependent.min(0).values.tolist() == first[index].clamp(min=0).tolist()
        assert dependent.max(0).values.tolist() == last[index].clamp(max=27).tolist()
        assert torch.nonzero(unit.receptive_field_HW).equal(dependent)


def test_the_fourier_prior_lowers_the_high_frequency_share_and_the_class_is_still_predicted(target):
    start, units = initial_noise(target, 0), select_units(target)
    natural = target.normalize(target.train_images(500) / 255)
    settings = {"scale": 1000.0, "lr": 0.33, "steps": 200}
    plain = maximise_activation(target, units, start, None, weight=1.0, **settings)
    smooth = maximise_activation(target, units, start, mean_amplitudes(natural), weight=300.0, **settings)
    assert high_frequency_share(smooth).mean() < 0.7 * high_frequency_share(plain).mean()
    for pictures in (plain, smooth):
        assert target.network(pictures).argmax(1).tolist() == list(range(10))


def test_the_weight_of_the_fourier_prior_is_proportional_to_the_gradient(wide):
    start, mean = initial_noise(wide, 0), mean_amplitudes(torch.rand(5, 1, 28, 28))
    units = select_units(wide)
    weight = balanced_weight(wide, units, start, mean, 1000)
    assert balanced_weight(wide, units, start, mean, 3000) == pytest.approx(3 * weight, rel=0.06)
    assert balanced_weight(wide, units, start, 2 * mean, 1000) == pytest.approx(weight / 2, rel=0.06)
    x = start.repeat(10, 1, 1, 1).requires_grad_(True)
    (gradient,) = torch.autograd.grad(wide.network(x).trace(), x)
    pull = 1000 / (2 * weight) * gradient.flatten(1).norm(dim=1).mean()
    assert pull.item() == pytest.approx(torch.fft.ifft2(mean).norm().item() / 2, rel=0.06)


def test_divergence_is_the_users_mistake(target):
    with pytest.raises(UserError, match="the pictures diverge"):
        maximise_activation(
            target, select_units(target, ["1"]), initial_noise(target, 0), None, scale=1, weight=1, lr=3, steps=200
        )


def test_a_channel_means_its_middle_position_and_no_name_means_all(target):
    assert [unit.index for unit in select_units(target, layer="conv2", units=["4"])] == [(4, 7, 7)]
    assert len(select_units(target, layer="conv2")) == 32
    assert [unit.index for unit in select_units(target, layer="fc1")] == [(number,) for number in range(64)]


def test_contrast_stretch_keeps_the_order_of_values_and_fills_0_to_1():
    x = torch.randn(2, 1, 8, 8) * torch.tensor([1e-3, 1e3])[:, None, None, None]
    shown = contrast_stretch(x)
    assert shown.amin((1, 2, 3)).tolist() == [0, 0]
    assert shown.amax((1, 2, 3)).tolist() == [1, 1]
    assert (shown[0].flatten()[x[0].flatten().argsort()].diff() >= 0).all()


def test_the_command_writes_a_picture_with_its_numbers_for_every_class(explain, target):
    outcome = explain("maximise", "--steps", "20", "--prior", "fourier")
    assert outcome.code == 0, outcome.err
    (picture,) = outcome.folder.glob("*.png")
    numbers = json.loads(picture.with_suffix(".json").read_text())
    assert numbers["units"] == list(target.classes)
    assert numbers["mean_high_frequency_share"] == pytest.approx(sum(numbers["high_frequency_share"]) / 10)
    assert len(numbers["after"]) == len(numbers["probability"]) == 10
    assert min(after - before for before, after in zip(numbers["before"], numbers["after"], strict=True)) > 0
    with Image.open(picture) as image:
        assert f"{numbers['mean_high_frequency_share']:.3g}" in image.text["Description"]


def test_units_whose_activation_fell_are_counted(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("litlab"), "propagate", True)  # False once a command has run in this process
    _warn_if_lower({"units": ["a", "b", "c"], "before": [0.0, 1.0, -1.0], "after": [-0.1, 2.0, -2.0]})
    assert "note: the activation of 2 of 3 ended below its start; if the steps are too long" in caplog.text
    caplog.clear()
    _warn_if_lower({"units": ["a"], "before": [0.0], "after": [0.1]})
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--class", "11"], "--class 11: the classes are 0, 1"),
        (["--unit", "0"], "--unit needs --layer"),
        (["--layer", "conv1", "--unit", "16"], "conv1 has 16x28x28 units; the first is 0,0,0"),
        (["--layer", "conv1", "--unit", "0,1"], "the first is 0,0,0"),
        (["--layer", "conv1", "--unit", "x"], "the first is 0,0,0"),
        (["--layer", "fc1", "--class", "1"], "cannot be combined with --layer"),
        (["--steps", "0"], "--steps 0: must be above 0"),
        (["--spectrum", "a.png"], "--spectrum needs --prior fourier"),
    ],
)
def test_an_error_names_what_cannot_be_maximised(explain, argv, message):
    outcome = explain("maximise", *argv)
    assert outcome.code == 2
    assert message in outcome.err

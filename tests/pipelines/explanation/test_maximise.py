"""Inputs that units answer to most."""

import json

import pytest
import torch
from PIL import Image

from modules.convnet import ConvNet
from pipelines.explanation.ascent import balanced_weight, beginning, descend, stretch
from pipelines.explanation.maximise import _warn
from pipelines.explanation.spectrum import high_share, mean_amplitudes
from pipelines.explanation.target import Target
from pipelines.explanation.units import choose, values
from pipelines.inspection import receptive_field as receptive
from pipelines.inspection.trace import trace
from pipelines.runtime.errors import UserError

PUBLISHED = {"scale": 1000.0, "weight": 1.0, "lr": 0.33}


@pytest.fixture(scope="module")
def wide():
    """A network on images that are much larger than what its second convolution sees."""
    torch.manual_seed(0)
    network = ConvNet((1, 28, 28), 10, channels=(4, 6), hidden=(16,), activation="leaky_relu")
    names = tuple(map(str, range(10)))
    return Target("wide", "wide", None, network, torch.nn.Identity(), (1, 28, 28), names, None, torch.device("cpu"))


def test_a_published_step_is_one_of_gradient_descent_on_the_published_objective(subject):
    units, start = choose(subject, None, ["7", "2"], []), beginning(subject, 0)
    x = start.repeat(2, 1, 1, 1).requires_grad_(True)
    loss = (-1000 * subject.network(x)[[0, 1], [7, 2]] + x.square().sum((1, 2, 3))).sum()
    (gradient,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(descend(subject, units, start, None, **PUBLISHED, steps=1), x.detach() - 0.33 * gradient)


def test_pictures_in_a_batch_are_the_pictures_of_each_unit_alone(subject):
    start = beginning(subject, 0)
    units = choose(subject, "conv1", [], ["0", "3,1,2", "5"])
    together = descend(subject, units, start, None, **PUBLISHED, steps=5)
    alone = torch.cat([descend(subject, [unit], start, None, **PUBLISHED, steps=5) for unit in units])
    torch.testing.assert_close(together, alone)


def test_the_same_seed_makes_the_same_picture_and_another_seed_another(subject):
    assert beginning(subject, 3).equal(beginning(subject, 3))
    assert not beginning(subject, 3).equal(beginning(subject, 4))


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
def test_nothing_outside_the_receptive_field_changes_and_all_within_does(wide, prior, layer, unit, rows, columns):
    start = beginning(wide, 0)
    mean = None if prior == "norm" else mean_amplitudes(torch.rand(5, 1, 28, 28))
    (named,) = choose(wide, layer, [], [unit])
    (picture,) = descend(wide, [named], start, mean, **PUBLISHED, steps=3)
    expected = torch.zeros(28, 28, dtype=torch.bool)
    expected[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = True
    assert (picture != start)[0].equal(expected)


def test_what_a_unit_is_said_to_see_is_what_inspect_says_and_what_has_a_gradient(wide):
    (row,) = [row for row in trace(wide.network, (1, 28, 28)).layers if row.name == "net.3"]
    assert row.receptive_field == (14, 14)
    first, last = receptive.intervals(row.reach, 2)
    for place in [(0, 0), (6, 6), (13, 2)]:
        (unit,) = choose(wide, "conv2", [], [",".join(map(str, (1, *place)))])
        x = torch.randn(200, 1, 28, 28, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
        values(wide, [unit] * 200, x).sum().backward()
        seen = torch.nonzero(x.grad.abs().sum((0, 1)))
        at = (slice(None), 1, *place)
        assert seen.min(0).values.tolist() == first[at].clamp(min=0).tolist()
        assert seen.max(0).values.tolist() == last[at].clamp(max=27).tolist()
        assert torch.nonzero(unit.sees_HW).equal(seen)


def test_the_fourier_prior_lowers_the_share_of_fine_detail_and_the_class_is_still_seen(subject):
    start, units = beginning(subject, 0), choose(subject, None, [], [])
    natural = subject.normalize(subject.train_images(500) / 255)
    settings = {"scale": 1000.0, "lr": 0.33, "steps": 200}
    plain = descend(subject, units, start, None, weight=1.0, **settings)
    smooth = descend(subject, units, start, mean_amplitudes(natural), weight=300.0, **settings)
    assert high_share(smooth).mean() < 0.7 * high_share(plain).mean()
    for pictures in (plain, smooth):
        assert subject.network(pictures).argmax(1).tolist() == list(range(10))


def test_the_fourier_priors_weight_grows_with_the_steepness_of_the_network(wide):
    start, mean = beginning(wide, 0), mean_amplitudes(torch.rand(5, 1, 28, 28))
    units = choose(wide, None, [], [])
    weight = balanced_weight(wide, units, start, mean, 1000)
    assert balanced_weight(wide, units, start, mean, 3000) == pytest.approx(3 * weight, rel=0.06)
    assert balanced_weight(wide, units, start, 2 * mean, 1000) == pytest.approx(weight / 2, rel=0.06)
    x = start.repeat(10, 1, 1, 1).requires_grad_(True)
    (gradient,) = torch.autograd.grad(wide.network(x).trace(), x)
    pull = 1000 / (2 * weight) * gradient.flatten(1).norm(dim=1).mean()
    assert pull.item() == pytest.approx(torch.fft.ifft2(mean).norm().item() / 2, rel=0.06)


def test_a_step_that_is_too_long_is_refused(subject):
    with pytest.raises(UserError, match="without bounds"):
        descend(
            subject, choose(subject, None, ["1"], []), beginning(subject, 0), None, scale=1, weight=1, lr=3, steps=200
        )


def test_a_channel_alone_means_its_middle_and_all_units_are_one_command(subject):
    assert [unit.index for unit in choose(subject, "conv2", [], ["4"])] == [(4, 7, 7)]
    assert len(choose(subject, "conv2", [], [])) == 32
    assert [unit.index for unit in choose(subject, "fc1", [], [])] == [(number,) for number in range(64)]


def test_stretching_keeps_the_order_of_values_and_fills_0_to_1():
    x = torch.randn(2, 1, 8, 8) * torch.tensor([1e-3, 1e3])[:, None, None, None]
    shown = stretch(x)
    assert shown.amin((1, 2, 3)).tolist() == [0, 0]
    assert shown.amax((1, 2, 3)).tolist() == [1, 1]
    assert (shown[0].flatten()[x[0].flatten().argsort()].diff() >= 0).all()


def test_the_command_writes_a_picture_with_its_numbers_for_every_class(explain, subject):
    outcome = explain("maximise", "--steps", "20", "--prior", "fourier")
    assert outcome.code == 0, outcome.err
    (picture,) = outcome.folder.glob("*.png")
    numbers = json.loads(picture.with_suffix(".json").read_text())
    assert numbers["units"] == list(subject.classes)
    assert numbers["mean_high_frequency_share"] == pytest.approx(sum(numbers["high_frequency_share"]) / 10)
    assert len(numbers["after"]) == len(numbers["probability"]) == 10
    assert min(after - before for before, after in zip(numbers["before"], numbers["after"], strict=True)) > 0
    with Image.open(picture) as image:
        assert f"{numbers['mean_high_frequency_share']:.3f}" in image.text["Description"]


def test_units_that_answer_less_than_at_the_start_are_counted(capsys):
    _warn({"units": ["a", "b", "c"], "before": [0.0, 1.0, -1.0], "after": [-0.1, 2.0, -2.0]})
    assert "2 of 3 answer less than at the start; if the steps are too long" in capsys.readouterr().err
    _warn({"units": ["a"], "before": [0.0], "after": [0.1]})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--class", "11"], "--class 11: the classes are 0, 1"),
        (["--unit", "0"], "--unit needs --layer"),
        (["--layer", "conv1", "--unit", "16"], "conv1 has 16x28x28 units; the first is 0,0,0"),
        (["--layer", "conv1", "--unit", "0,1"], "the first is 0,0,0"),
        (["--layer", "conv1", "--unit", "x"], "the first is 0,0,0"),
        (["--layer", "fc1", "--class", "1"], "does not go with"),
        (["--steps", "0"], "--steps 0: it must be above 0"),
        (["--spectrum", "a.png"], "goes with --prior fourier"),
    ],
)
def test_what_cannot_be_maximised_is_said(explain, argv, said):
    outcome = explain("maximise", *argv)
    assert outcome.code == 2
    assert said in outcome.err

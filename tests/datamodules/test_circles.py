"""Circles: sizes, radii and noise as configured, three independent sets, reproducible by the seed."""

import math
from itertools import combinations

import pytest
import torch

from datamodules.circles import Circles
from modules.linear import LinearClassifier

SPLITS = ("train", "val", "test")


def _circles(**options) -> Circles:
    data = Circles(**options)
    data.setup("fit")
    data.setup("test")
    return data


def _sets(data: Circles) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    sets = {name: getattr(data, f"{name}_set") for name in SPLITS}
    return {name: (dataset.inputs, dataset.targets) for name, dataset in sets.items()}


def _rows(points: torch.Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in points.tolist()}


@pytest.mark.parametrize("sizes", [(200, 200, 200), (101, 50, 7)])
def test_the_sets_have_the_configured_sizes_with_half_of_each_on_each_circle(sizes):
    data = _circles(**dict(zip(("n_train", "n_val", "n_test"), sizes, strict=True)))
    for (points, labels), size in zip(_sets(data).values(), sizes, strict=True):
        assert points.shape == (size, 2)
        assert points.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert labels.bincount(minlength=2).tolist() == [size // 2, size - size // 2]
    assert data.num_classes == 2
    assert data.input_shape == (2,)
    assert data.describe()["sizes"] == dict(zip(SPLITS, sizes, strict=True))


def test_the_three_sets_are_disjoint_and_independent():
    """No set is a copy of another with new noise or a new order: the order of its labels is independent."""
    sets = _sets(_circles(noise=0.1))
    for one, other in combinations(SPLITS, 2):
        assert not _rows(sets[one][0]) & _rows(sets[other][0])
        agreement = float((sets[one][1] == sets[other][1]).double().mean())
        assert agreement == pytest.approx(0.5, abs=5 * (0.25 / 200) ** 0.5)


@pytest.mark.parametrize("split", SPLITS)
def test_only_the_seed_determines_the_points(split):
    torch.manual_seed(1)
    first = _sets(_circles(seed=3))[split]
    torch.manual_seed(2)
    same_seed, other_seed = _sets(_circles(seed=3, batch_size=7))[split], _sets(_circles(seed=4))[split]
    assert torch.equal(first[0], same_seed[0])
    assert torch.equal(first[1], same_seed[1])
    assert not _rows(first[0]) & _rows(other_seed[0])


def test_the_size_of_one_set_does_not_change_another():
    small, large = _sets(_circles(n_train=50)), _sets(_circles(n_train=150))
    assert torch.equal(small["val"][0], large["val"][0])
    assert torch.equal(small["test"][0], large["test"][0])


@pytest.mark.parametrize(("radius", "factor"), [(2.0, 0.5), (1.0, 0.8), (3.0, 0.0)])
def test_without_noise_the_points_lie_on_the_circle_of_their_label(radius, factor):
    points, labels = _sets(_circles(radius=radius, factor=factor, noise=0.0))["train"]
    expected = torch.where(labels == 0, radius, radius * factor)
    torch.testing.assert_close(points.norm(dim=1), expected, rtol=1e-5, atol=1e-6)
    assert _circles().classes == ("outer", "inner")


def test_the_noise_is_gaussian_in_units_of_the_outer_radius():
    """Radial distance from the circle: mean s^2 / 2r, std s, each within five standard errors of 5,000 points."""
    points, labels = _sets(_circles(n_train=10_000, radius=4.0, noise=0.05))["train"]
    distance = (points.norm(dim=1) - 4)[labels == 0].double()
    s, n = 4 * 0.05, len(distance)
    assert float(distance.std()) == pytest.approx(s, rel=5 / math.sqrt(2 * n))
    assert float(distance.mean()) == pytest.approx(s**2 / 8, abs=5 * s / math.sqrt(n))


@pytest.mark.parametrize("n", ["n_train", "n_val", "n_test"])
def test_the_error_for_a_size_below_one_names_its_key(n):
    with pytest.raises(ValueError, match=rf"data\.{n} is 0"):
        Circles(**{n: 0})


@pytest.mark.parametrize(
    "options",
    [{"radius": 0.0}, {"radius": -1.0}, {"noise": -0.1}, {"factor": 1.0}, {"factor": -0.5}, {"batch_size": 0}],
)
def test_the_error_for_a_value_out_of_range_names_its_key(options):
    ((key, value),) = options.items()
    with pytest.raises(ValueError, match=rf"data\.{key} is {value}"):
        Circles(**options)


def test_loaders_yield_every_point_once_and_shuffle_the_training_set(make_trainer):
    data = _circles(n_train=200, batch_size=30)
    points = torch.cat([inputs for inputs, _ in data.train_dataloader()])
    assert _rows(points) == _rows(data.train_set.inputs)
    assert not torch.equal(points, data.train_set.inputs)
    assert torch.equal(torch.cat([inputs for inputs, _ in data.val_dataloader()]), data.val_set.inputs)


def test_a_linear_classifier_is_not_much_better_than_chance(make_trainer):
    """A line can cut off a third of the outer circle if the inner radius is half as large: an accuracy of 2/3."""
    data = _circles()
    trainer = make_trainer(max_epochs=20)
    trainer.fit(LinearClassifier((2,), 2), data)
    assert float(trainer.callback_metrics["val/acc"]) < 0.75


def test_the_training_set_can_be_evaluated_again(make_trainer):
    data = _circles(evaluate_train=True)
    model, trainer = LinearClassifier((2,), 2), make_trainer(max_epochs=1)
    trainer.fit(model, data)
    correct = (model(data.train_set.inputs).argmax(1) == data.train_set.targets).float().mean()
    assert float(trainer.callback_metrics["train_end/acc"]) == pytest.approx(float(correct), abs=1e-6)

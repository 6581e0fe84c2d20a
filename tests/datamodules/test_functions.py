"""The three functions, recomputed from their formulas with a W of our own making."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from datamodules.functions import Functions, targets

PARTS = ("train", "val", "test")
W = 4 * (np.random.default_rng((0, 3)).random((4, 4)) - 0.5)
"""Entries 4 (u - 1/2), u uniform on [0, 1], drawn once and for all."""


def _functions(**options) -> Functions:
    data = Functions(**{"n_train": 500, "n_val": 201, "n_test": 99, **options})
    data.setup("fit")
    data.setup("test")
    return data


def _set(data: Functions, part: str) -> tuple[np.ndarray, np.ndarray]:
    found = getattr(data, f"{part}_set")
    return found.inputs.numpy(), found.targets.numpy()


def _rows(points: np.ndarray) -> set[tuple[float, ...]]:
    return {tuple(row) for row in points.tolist()}


def test_the_sets_have_their_sizes():
    data = _functions()
    for part, size in zip(PARTS, (500, 201, 99), strict=True):
        x, y = _set(data, part)
        assert x.shape == (size, 4)
        assert y.shape == (size, 3)
        assert x.dtype == y.dtype == np.float32
    assert data.card()["sizes"] == {"train": 500, "val": 201, "test": 99}
    assert (data.num_classes, data.classes, data.input_shape) == (0, (), (4,))


@pytest.mark.parametrize("part", PARTS)
def test_the_targets_are_the_functions_of_the_inputs(part):
    x, y = _set(_functions(seed=5), part)
    xW = x.astype(float) @ W
    expected = np.stack([xW.sum(1), x.max(1), np.log(np.exp(xW).sum(1))], axis=1)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_a_single_target_by_plain_arithmetic():
    x = [0.5, -1.0, 2.0, 1.5]
    xW = [sum(x[i] * W[i, j] for i in range(4)) for j in range(4)]
    (row,) = targets(torch.tensor([x], dtype=torch.float64)).tolist()
    assert row == pytest.approx([sum(xW), 2.0, math.log(sum(math.exp(value) for value in xW))], rel=1e-12)


def test_y2_overflows_nowhere():
    assert targets(torch.full((1, 4), 1e4, dtype=torch.float64)).isfinite().all()


def test_a_line_is_y0_exactly_and_neither_of_the_others():
    x, y = _set(_functions(), "train")
    ones = np.concatenate([x.astype(float), np.ones((len(x), 1))], 1)
    solution = np.linalg.lstsq(ones, y, rcond=None)[0]
    left = np.abs(y - ones @ solution).max(0)
    assert left[0] < 1e-5
    assert min(left[1:]) > 0.3
    np.testing.assert_allclose(solution[:, 0], [*W.sum(1), 0], atol=1e-5)


def test_inputs_are_uniform_on_the_square_of_side_four():
    """Mean 0 and variance 4/3 in each coordinate, within five standard errors of 20,000."""
    x, _ = _set(_functions(n_train=20_000), "train")
    assert -2 <= x.min() < -1.99
    assert 1.99 < x.max() <= 2
    assert np.abs(x.mean(0)).max() < 5 * math.sqrt(4 / 3 / 20_000)
    assert np.abs(x.var(0) - 4 / 3).max() < 5 * math.sqrt((16 / 5 - 16 / 9) / 20_000)
    assert np.abs(np.corrcoef(x.T) - np.eye(4)).max() < 5 / math.sqrt(20_000)


def test_no_example_is_in_two_sets():
    data = _functions(n_train=300, n_val=300, n_test=300)
    for one, other in combinations(PARTS, 2):
        assert not _rows(_set(data, one)[0]) & _rows(_set(data, other)[0])
        assert abs(np.corrcoef(_set(data, one)[0].ravel(), _set(data, other)[0].ravel())[0, 1]) < 5 / math.sqrt(1200)


@pytest.mark.parametrize("part", PARTS)
def test_the_seed_draws_the_examples_and_leaves_the_functions(part):
    torch.manual_seed(1)
    first = _set(_functions(seed=3), part)
    torch.manual_seed(2)
    again, another = _set(_functions(seed=3, batch_size=7), part), _set(_functions(seed=4), part)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not _rows(first[0]) & _rows(another[0])


def test_the_size_of_one_set_does_not_change_another():
    for part in ("val", "test"):
        assert np.array_equal(_set(_functions(n_train=50), part)[0], _set(_functions(n_train=150), part)[0])


@pytest.mark.parametrize("n", ["n_train", "n_val", "n_test", "batch_size"])
def test_a_size_below_one_is_refused_by_its_key(n):
    with pytest.raises(ValueError, match=rf"data\.{n} is 0"):
        Functions(**{n: 0})


def test_the_sets_are_the_same_however_often_they_are_set_up():
    data = _functions()
    before = data.card()
    data.setup("fit")
    data.setup("validate")
    data.setup("test")
    assert data.card() == before

"""Functions: targets recomputed from their formulas, distribution of the inputs, reproducible by the seed."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from datamodules.functions import Functions, targets

SPLITS = ("train", "val", "test")
W = 4 * (np.random.default_rng((0, 3)).random((4, 4)) - 0.5)
"""The fixed matrix with entries 4 (u - 1/2), u uniform on [0, 1]."""


def _functions(**options) -> Functions:
    data = Functions(**{"n_train": 500, "n_val": 201, "n_test": 99, **options})
    data.setup("fit")
    data.setup("test")
    return data


def _set(data: Functions, split: str) -> tuple[np.ndarray, np.ndarray]:
    dataset = getattr(data, f"{split}_set")
    return dataset.inputs.numpy(), dataset.targets.numpy()


def _rows(points: np.ndarray) -> set[tuple[float, ...]]:
    return {tuple(row) for row in points.tolist()}


def test_the_sets_have_the_configured_sizes():
    data = _functions()
    for split, size in zip(SPLITS, (500, 201, 99), strict=True):
        x, y = _set(data, split)
        assert x.shape == (size, 4)
        assert y.shape == (size, 3)
        assert x.dtype == y.dtype == np.float32
    assert data.describe()["sizes"] == {"train": 500, "val": 201, "test": 99}
    assert (data.num_classes, data.classes, data.input_shape) == (0, (), (4,))


@pytest.mark.parametrize("split", SPLITS)
def test_the_targets_are_the_functions_of_the_inputs(split):
    x, y = _set(_functions(seed=5), split)
    xW = x.astype(float) @ W
    expected = np.stack([xW.sum(1), x.max(1), np.log(np.exp(xW).sum(1))], axis=1)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_a_single_target_equals_plain_python_arithmetic():
    x = [0.5, -1.0, 2.0, 1.5]
    xW = [sum(x[i] * W[i, j] for i in range(4)) for j in range(4)]
    (row,) = targets(torch.tensor([x], dtype=torch.float64)).tolist()
    assert row == pytest.approx([sum(xW), 2.0, math.log(sum(math.exp(value) for value in xW))], rel=1e-12)


def test_y2_does_not_overflow():
    assert targets(torch.full((1, 4), 1e4, dtype=torch.float64)).isfinite().all()


def test_a_linear_model_fits_y0_exactly_and_not_y1_and_y2():
    x, y = _set(_functions(), "train")
    design = np.concatenate([x.astype(float), np.ones((len(x), 1))], 1)
    solution = np.linalg.lstsq(design, y, rcond=None)[0]
    residuals = np.abs(y - design @ solution).max(0)
    assert residuals[0] < 1e-5
    assert min(residuals[1:]) > 0.3
    np.testing.assert_allclose(solution[:, 0], [*W.sum(1), 0], atol=1e-5)


def test_inputs_are_uniform_on_the_hypercube_of_side_four():
    """Mean 0 and variance 4/3 in each coordinate, within five standard errors of 20,000 examples."""
    x, _ = _set(_functions(n_train=20_000), "train")
    assert -2 <= x.min() < -1.99
    assert 1.99 < x.max() <= 2
    assert np.abs(x.mean(0)).max() < 5 * math.sqrt(4 / 3 / 20_000)
    assert np.abs(x.var(0) - 4 / 3).max() < 5 * math.sqrt((16 / 5 - 16 / 9) / 20_000)
    assert np.abs(np.corrcoef(x.T) - np.eye(4)).max() < 5 / math.sqrt(20_000)


def test_no_example_is_in_two_sets():
    data = _functions(n_train=300, n_val=300, n_test=300)
    for one, other in combinations(SPLITS, 2):
        assert not _rows(_set(data, one)[0]) & _rows(_set(data, other)[0])
        assert abs(np.corrcoef(_set(data, one)[0].ravel(), _set(data, other)[0].ravel())[0, 1]) < 5 / math.sqrt(1200)


@pytest.mark.parametrize("split", SPLITS)
def test_the_seed_changes_the_examples_and_not_the_functions(split):
    torch.manual_seed(1)
    first = _set(_functions(seed=3), split)
    torch.manual_seed(2)
    same_seed, other_seed = _set(_functions(seed=3, batch_size=7), split), _set(_functions(seed=4), split)
    assert np.array_equal(first[0], same_seed[0])
    assert np.array_equal(first[1], same_seed[1])
    assert not _rows(first[0]) & _rows(other_seed[0])


def test_the_size_of_one_set_does_not_change_another():
    for split in ("val", "test"):
        assert np.array_equal(_set(_functions(n_train=50), split)[0], _set(_functions(n_train=150), split)[0])


@pytest.mark.parametrize("n", ["n_train", "n_val", "n_test", "batch_size"])
def test_the_error_for_a_size_below_one_names_its_key(n):
    with pytest.raises(ValueError, match=rf"data\.{n} is 0"):
        Functions(**{n: 0})


def test_repeated_setup_gives_the_same_sets():
    data = _functions()
    before = data.describe()
    data.setup("fit")
    data.setup("validate")
    data.setup("test")
    assert data.describe() == before

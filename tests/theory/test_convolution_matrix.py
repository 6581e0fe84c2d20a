"""The matrix of a convolution is a Toeplitz matrix, and circulant only if the signal is periodic.

A matrix is Toeplitz if its diagonals are constant. It is circulant if, in addition, it is square and each row is the
row above it, rotated by one.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

SEEDS = st.integers(0, 2**32 - 1)


def matrix_of(operation: Callable[[Tensor], Tensor], n: int) -> Tensor:
    """Return the matrix of a linear operation on n values: its columns are the results for the unit vectors."""
    return torch.stack([operation(unit) for unit in torch.eye(n)], dim=1)


def correlate(x_N: Tensor, filter_K: Tensor) -> Tensor:
    return F.conv1d(x_N[None, None], filter_K[None, None])[0, 0]


def is_toeplitz(matrix: Tensor) -> bool:
    return torch.equal(matrix[1:, 1:], matrix[:-1, :-1])


def is_circulant(matrix: Tensor) -> bool:
    rows, columns = matrix.shape
    return rows == columns and torch.equal(matrix, matrix.roll((1, 1), (0, 1)))


@given(seed=SEEDS, k=st.integers(2, 5), n=st.integers(1, 6))
def test_the_matrix_of_a_valid_convolution_is_rectangular_toeplitz_not_circulant(seed, k, n):
    """A filter of k > 1 values gives n - k + 1 values from n, so the matrix is not square, as a circulant one is."""
    n += k
    torch.manual_seed(seed)
    filter_ = torch.randn(k)
    matrix = matrix_of(lambda x: correlate(x, filter_), n)
    assert matrix.shape == (n - k + 1, n)
    assert is_toeplitz(matrix)
    assert not is_circulant(matrix)


@pytest.mark.parametrize(("mode", "circulant"), [("constant", False), ("circular", True)])
@given(seed=SEEDS, half=st.integers(1, 3), n=st.integers(1, 6))
def test_a_convolution_that_keeps_the_size_is_circulant_if_the_signal_is_periodic(mode, circulant, seed, half, n):
    """With zeros around the signal the matrix is square and Toeplitz; with the other end of the signal, circulant."""
    n += 2 * half
    torch.manual_seed(seed)
    filter_ = torch.randn(2 * half + 1)

    def same(x: Tensor) -> Tensor:
        return correlate(F.pad(x[None, None], (half, half), mode=mode)[0, 0], filter_)

    matrix = matrix_of(same, n)
    assert matrix.shape == (n, n)
    assert is_toeplitz(matrix)
    assert is_circulant(matrix) == circulant


def convolve_at(x: Sequence[float], f: Sequence[float], i: int, terms: int) -> float:
    """(x * f)[i] = sum over k from 0 to terms - 1 of f[k] x[i - k]."""
    return sum(f[k] * x[i - k] for k in range(terms))


@given(seed=SEEDS, m=st.integers(1, 5), n=st.integers(1, 6))
def test_the_sum_of_a_convolution_runs_over_the_m_values_of_the_filter_not_the_n_of_the_signal(seed, m, n):
    """A sum of m terms is numpy's convolution; one of n terms reads beyond the end of the filter."""
    n += m
    random = np.random.default_rng(seed)
    x, f = random.normal(size=n).tolist(), random.normal(size=m).tolist()
    valid = [convolve_at(x, f, i, terms=m) for i in range(m - 1, n)]
    np.testing.assert_allclose(valid, np.convolve(x, f, mode="valid"), rtol=1e-10, atol=1e-10)
    with pytest.raises(IndexError):
        convolve_at(x, f, m - 1, terms=n)

"""The gradients of a convolution are convolutions themselves: implemented with loops and compared with autograd.

A layer computes O = X (*) F + b, where (*) slides the filter over the image without rotating it. This is a
cross-correlation, which deep learning calls convolution. dO is dL/dO for any loss L.

Shapes: B examples, C input channels, K output channels, HxW image, RxS filter, IxJ output.
"""

from functools import partial
from itertools import product

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(1, 4)
assert_equal = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


def correlate_valid(image_HW: Tensor, filter_RS: Tensor) -> Tensor:
    """O[i, j] = sum over r, s of X[i + r, j + s] F[r, s], at every position where the filter is inside the image."""
    (H, W), (R, S) = image_HW.shape, filter_RS.shape
    output_IJ = torch.zeros(H - R + 1, W - S + 1)
    for i in range(H - R + 1):
        for j in range(W - S + 1):
            output_IJ[i, j] = (image_HW[i : i + R, j : j + S] * filter_RS).sum()
    return output_IJ


def correlate_full(image_HW: Tensor, filter_RS: Tensor) -> Tensor:
    """The same at every position where the filter overlaps the image, which is padded with zeros."""
    R, S = filter_RS.shape
    return correlate_valid(F.pad(image_HW, (S - 1, S - 1, R - 1, R - 1)), filter_RS)


def rotate(filter_RS: Tensor) -> Tensor:
    """Rotate by 180 degrees: the first row becomes the last, the first column becomes the last."""
    return filter_RS.flip(0, 1)


def convolve_full(image_HW: Tensor, filter_RS: Tensor) -> Tensor:
    """Mathematical convolution: every pixel X[i, j] adds X[i, j] * F at position i, j."""
    (H, W), (R, S) = image_HW.shape, filter_RS.shape
    output = torch.zeros(H + R - 1, W + S - 1)
    for i in range(H):
        for j in range(W):
            output[i : i + R, j : j + S] += image_HW[i, j] * filter_RS
    return output


def forward(X_BCHW: Tensor, F_KCRS: Tensor, b_K: Tensor) -> Tensor:
    """O[b, k] = sum over c of X[b, c] (*) F[k, c], plus b[k]."""
    (B, C, H, W), (K, _, R, S) = X_BCHW.shape, F_KCRS.shape
    O_BKIJ = torch.zeros(B, K, H - R + 1, W - S + 1)
    for b, k, c in product(range(B), range(K), range(C)):
        O_BKIJ[b, k] += correlate_valid(X_BCHW[b, c], F_KCRS[k, c])
    return O_BKIJ + b_K.view(1, K, 1, 1)


def filter_gradient(X_BCHW: Tensor, dO_BKIJ: Tensor) -> Tensor:
    """dF[k, c] = sum over b of the valid correlation of X[b, c] with dO[b, k]."""
    (B, C, H, W), (_, K, I, J) = X_BCHW.shape, dO_BKIJ.shape  # noqa: E741
    dF_KCRS = torch.zeros(K, C, H - I + 1, W - J + 1)
    for b, k, c in product(range(B), range(K), range(C)):
        dF_KCRS[k, c] += correlate_valid(X_BCHW[b, c], dO_BKIJ[b, k])
    return dF_KCRS


def input_gradient(dO_BKIJ: Tensor, F_KCRS: Tensor) -> Tensor:
    """dX[b, c] = sum over k of the full correlation of dO[b, k] with the rotated F[k, c]."""
    (B, _, I, J), (K, C, R, S) = dO_BKIJ.shape, F_KCRS.shape  # noqa: E741
    dX_BCHW = torch.zeros(B, C, I + R - 1, J + S - 1)
    for b, k, c in product(range(B), range(K), range(C)):
        dX_BCHW[b, c] += correlate_full(dO_BKIJ[b, k], rotate(F_KCRS[k, c]))
    return dX_BCHW


def bias_gradient(dO_BKIJ: Tensor) -> Tensor:
    """db[k] = sum over b, i, j of dO[b, k, i, j]: the bias is added to every value of its channel."""
    return dO_BKIJ.sum((0, 2, 3))


@given(seed=SEEDS, R=SIDES, S=SIDES, rows=SIDES, columns=SIDES)
def test_with_one_channel_the_filter_gradient_is_a_valid_correlation(seed, R, S, rows, columns):
    """dL/dF is the valid cross-correlation of X with dL/dO."""
    torch.manual_seed(seed)
    X, dO = torch.randn(rows + R - 1, columns + S - 1), torch.randn(rows, columns)
    filter_ = torch.randn(R, S, requires_grad=True)
    output = F.conv2d(X[None, None], filter_[None, None])[0, 0]
    assert_equal(output, correlate_valid(X, filter_))
    (by_autograd,) = torch.autograd.grad(output, filter_, dO)
    assert_equal(correlate_valid(X, dO), by_autograd)


@given(seed=SEEDS, R=SIDES, S=SIDES, rows=SIDES, columns=SIDES)
def test_with_one_channel_the_image_gradient_is_a_full_correlation_with_the_rotated_filter(seed, R, S, rows, columns):
    """dL/dX is the full cross-correlation of dL/dO with F rotated by 180 degrees."""
    torch.manual_seed(seed)
    filter_, dO = torch.randn(R, S), torch.randn(rows, columns)
    X = torch.randn(rows + R - 1, columns + S - 1, requires_grad=True)
    (by_autograd,) = torch.autograd.grad(F.conv2d(X[None, None], filter_[None, None])[0, 0], X, dO)
    assert_equal(correlate_full(dO, rotate(filter_)), by_autograd)


@given(seed=SEEDS, R=SIDES, S=SIDES, rows=SIDES, columns=SIDES)
def test_correlation_with_the_rotated_filter_is_convolution_with_the_filter(seed, R, S, rows, columns):
    """The rotation turns the cross-correlation into a convolution: dO[i, j] adds dO[i, j] * F to the image gradient."""
    torch.manual_seed(seed)
    filter_, dO = torch.randn(R, S), torch.randn(rows, columns)
    assert_equal(correlate_full(dO, rotate(filter_)), convolve_full(dO, filter_))


def test_rotating_twice_gives_the_wrong_gradient():
    """Mathematical convolution already rotates the filter: with a rotated filter the gradient would be reversed."""
    filter_, dO = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0]])
    X = torch.zeros(1, 2, requires_grad=True)
    (by_autograd,) = torch.autograd.grad(F.conv2d(X[None, None], filter_[None, None])[0, 0], X, dO)
    assert by_autograd.tolist() == convolve_full(dO, filter_).tolist() == [[1.0, 2.0]]
    assert convolve_full(dO, rotate(filter_)).tolist() == [[2.0, 1.0]]


@given(
    seed=SEEDS,
    sizes=st.fixed_dictionaries({name: st.integers(1, 3) for name in "BCKRSIJ"}),
)
def test_gradients_sum_over_channels_and_examples(seed, sizes):
    """With many channels dL/dF sums over examples, dL/dX over filters, and dL/db over examples and positions."""
    B, C, K, R, S, I, J = (sizes[name] for name in "BCKRSIJ")  # noqa: E741
    torch.manual_seed(seed)
    X = torch.randn(B, C, I + R - 1, J + S - 1, requires_grad=True)
    filters, biases = torch.randn(K, C, R, S, requires_grad=True), torch.randn(K, requires_grad=True)
    dO = torch.randn(B, K, I, J)
    output = F.conv2d(X, filters, biases)
    assert_equal(forward(X.detach(), filters.detach(), biases.detach()), output.detach())
    dX, dF, db = torch.autograd.grad(output, (X, filters, biases), dO)
    assert_equal(filter_gradient(X.detach(), dO), dF)
    assert_equal(input_gradient(dO, filters.detach()), dX)
    assert_equal(bias_gradient(dO), db)


@given(seed=SEEDS, padding=st.integers(0, 2), side=st.integers(3, 6))
def test_padding_only_crops_the_gradient_of_the_image(seed, padding, side):
    """With zero padding, dL/dX is the same full correlation without the border that belongs to the padding."""
    torch.manual_seed(seed)
    X, filter_ = torch.randn(side, side, requires_grad=True), torch.randn(3, 3)
    output = F.conv2d(X[None, None], filter_[None, None], padding=padding)[0, 0]
    dO = torch.randn(output.shape)
    (by_autograd,) = torch.autograd.grad(output, X, dO)
    full = correlate_full(dO, rotate(filter_))
    assert_equal(full[padding : padding + side, padding : padding + side], by_autograd)

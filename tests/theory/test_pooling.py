"""Pooling and its gradients by hand, and why average pooling is a convolution and max pooling is not.

Shapes: B examples, C channels, HxW image; the windows of k x k do not overlap.
"""

from functools import partial

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(1, 3)
assert_equal = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)
shapes = given(seed=SEEDS, B=SIDES, C=SIDES, k=SIDES, rows=SIDES, columns=SIDES)


def windows(image_HW: Tensor, k: int) -> list[tuple[int, int, Tensor]]:
    """Return each window's position in the output, and the window as a view of the image."""
    H, W = image_HW.shape
    return [(i, j, image_HW[i * k : (i + 1) * k, j * k : (j + 1) * k]) for i in range(H // k) for j in range(W // k)]


def max_pool_gradient(image_HW: Tensor, dO_IJ: Tensor, k: int) -> Tensor:
    """The maximum of a window receives the whole gradient, the other values 0."""
    dX_HW = torch.zeros_like(image_HW)
    for (i, j, values), (_, _, gradient) in zip(windows(image_HW, k), windows(dX_HW, k), strict=True):
        row, column = divmod(int(values.argmax()), k)
        gradient[row, column] = dO_IJ[i, j]
    return dX_HW


def average_pool_gradient(image_HW: Tensor, dO_IJ: Tensor, k: int) -> Tensor:
    """All k x k values of a window receive an equal part of the gradient."""
    dX_HW = torch.zeros_like(image_HW)
    for i, j, gradient in windows(dX_HW, k):
        gradient[:] = dO_IJ[i, j] / k**2
    return dX_HW


def by_hand(gradient_of_one, images_BCHW: Tensor, dO_BCIJ: Tensor, k: int) -> Tensor:
    """Apply a gradient function to each channel of each example."""
    pairs = zip(images_BCHW.detach().flatten(0, 1), dO_BCIJ.flatten(0, 1), strict=True)
    return torch.stack([gradient_of_one(image, dO, k) for image, dO in pairs]).view_as(images_BCHW)


@shapes
def test_the_gradient_of_max_pooling_goes_to_the_maximum(seed, B, C, k, rows, columns):
    """The gradient of max pooling is that of the output at the position of the maximum, and 0 elsewhere."""
    torch.manual_seed(seed)
    images = torch.randn(B, C, k * rows, k * columns, requires_grad=True)
    dO = torch.randn(B, C, rows, columns)
    (by_autograd,) = torch.autograd.grad(F.max_pool2d(images, k), images, dO)
    assert_equal(by_hand(max_pool_gradient, images, dO, k), by_autograd)


@shapes
def test_the_gradient_of_average_pooling_is_distributed_equally(seed, B, C, k, rows, columns):
    """The gradient of average pooling is 1 / k^2 times that of the output, at each position of the window."""
    torch.manual_seed(seed)
    images = torch.randn(B, C, k * rows, k * columns, requires_grad=True)
    dO = torch.randn(B, C, rows, columns)
    (by_autograd,) = torch.autograd.grad(F.avg_pool2d(images, k), images, dO)
    assert_equal(by_hand(average_pool_gradient, images, dO, k), by_autograd)


@shapes
def test_average_pooling_is_a_strided_convolution(seed, B, C, k, rows, columns):
    """Average pooling is a convolution with stride k and a kernel of 1 / k^2 within each channel."""
    torch.manual_seed(seed)
    images = torch.randn(B, C, k * rows, k * columns)
    filters = torch.zeros(C, C, k, k)
    for c in range(C):
        filters[c, c] = 1 / k**2
    assert_equal(F.conv2d(images, filters, stride=k), F.avg_pool2d(images, k))


@shapes
def test_convolution_and_average_pooling_are_odd_functions(seed, B, C, k, rows, columns):
    """For a linear operation f(-x) = -f(x): the two add up to 0, for any kernel and for the mean."""
    torch.manual_seed(seed)
    images, filters = torch.randn(B, C, k * rows, k * columns), torch.randn(2, C, k, k)
    zeros = F.conv2d(images, filters, stride=k) + F.conv2d(-images, filters, stride=k)
    assert_equal(zeros, torch.zeros_like(zeros))
    zeros = F.avg_pool2d(images, k) + F.avg_pool2d(-images, k)
    assert_equal(zeros, torch.zeros_like(zeros))


def test_max_pooling_is_not_linear():
    """max(x) + max(-x) is the range of the values and not 0, so no kernel represents the maximum."""
    x = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]])
    assert F.max_pool2d(x, 2).item() == 5.0
    assert F.max_pool2d(-x, 2).item() == -1.0
    assert F.max_pool2d(x, 2).item() + F.max_pool2d(-x, 2).item() == 5.0 - 1.0


@given(seed=SEEDS, factor=st.floats(0, 100), constant=st.floats(-100, 100))
def test_max_pooling_commutes_with_positive_factors_and_constants(seed, factor, constant):
    """The maximum is not linear, but max(a x + c) = a max(x) + c for a >= 0, because it depends on the order only."""
    torch.manual_seed(seed)
    x = torch.randn(1, 1, 4, 4)
    assert_equal(F.max_pool2d(factor * x + constant, 2), factor * F.max_pool2d(x, 2) + constant)

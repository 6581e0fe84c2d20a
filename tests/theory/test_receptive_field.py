"""Receptive fields: a formula, compared with the inputs whose gradient is not 0.

A layer, which may be a pooling layer, has a kernel size and a stride. With positive weights and inputs nothing cancels
and every ReLU is active, so a unit's gradient is positive exactly for the inputs in its receptive field.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

LAYERS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=4)


def receptive_field(layers: list[tuple[int, int]]) -> int:
    """Return its side: 1 + sum over layers of (kernel - 1) times the product of the strides of previous layers."""
    field, jump = 1, 1  # jump: distance of two adjacent units of the current layer, in inputs
    for kernel, stride in layers:
        field += (kernel - 1) * jump
        jump *= stride
    return field


def seen_by_first_unit(layers: list[tuple[int, int]], n: int) -> Tensor:
    """Return on which of n inputs the first unit of the last layer depends."""
    x = torch.rand(1, 1, n).requires_grad_()
    h = x
    for kernel, stride in layers:
        h = F.relu(F.conv1d(h, 0.5 + torch.rand(1, 1, kernel), stride=stride))
    (gradient,) = torch.autograd.grad(h[0, 0, 0], x)
    return gradient[0, 0] > 0


@pytest.mark.parametrize(
    ("kernels", "field"),
    [((7,), 7), ((3, 3, 3), 7), ((5, 3), 7), ((3, 5), 7), ((3, 3, 3, 3), 9), ((1, 1), 1)],
)
def test_stacked_small_kernels_have_the_receptive_field_of_a_large_one(kernels, field):
    """The receptive field of 7x7, of three 3x3, and of 5x5 and 3x3 is 7; that of four 3x3 is 9."""
    layers = [(kernel, 1) for kernel in kernels]
    assert receptive_field(layers) == field
    assert int(seen_by_first_unit(layers, n=12).sum()) == field


@given(seed=st.integers(0, 2**32 - 1), layers=LAYERS)
def test_the_formula_equals_the_extent_of_the_gradient(seed, layers):
    """With r = 1 + sum (k_i - 1) s_1 ... s_(i-1) the first unit depends on inputs from 0 to r - 1."""
    torch.manual_seed(seed)
    field = receptive_field(layers)
    seen = seen_by_first_unit(layers, n=field + 5).nonzero().flatten().tolist()
    assert seen[0] == 0
    assert seen[-1] == field - 1


@pytest.mark.parametrize(("stride", "field"), [(1, 5), (2, 7), (3, 9)])
def test_a_larger_stride_gives_a_larger_receptive_field(stride, field):
    """Two kernels of 3 see 5 inputs if the first has stride 1, 7 with stride 2, and 9 with stride 3."""
    layers = [(3, stride), (3, 1)]
    assert receptive_field(layers) == field
    assert int(seen_by_first_unit(layers, n=12).sum()) == field


@given(seed=st.integers(0, 2**32 - 1), layers=LAYERS)
def test_no_input_is_skipped_if_no_stride_exceeds_its_kernel(seed, layers):
    """A unit depends on every input of its receptive field if no layer has a stride larger than its kernel."""
    torch.manual_seed(seed)
    layers = [(max(kernel, stride), stride) for kernel, stride in layers]
    assert int(seen_by_first_unit(layers, n=receptive_field(layers) + 5).sum()) == receptive_field(layers)


def test_a_stride_larger_than_its_kernel_leaves_gaps():
    """With kernel 1 and stride 2, then kernel 2, the field has three inputs, but the unit ignores the middle one."""
    assert receptive_field([(1, 2), (2, 1)]) == 3
    assert seen_by_first_unit([(1, 2), (2, 1)], n=4).tolist() == [True, False, True, False]


@given(seed=st.integers(0, 2**32 - 1), layers=LAYERS, more=st.integers(0, 3))
def test_fields_of_adjacent_units_are_shifted_by_the_product_of_the_strides(seed, layers, more):
    """The field of the m-th unit is that of the first, shifted by m times the product of all strides."""
    torch.manual_seed(seed)
    jump = 1
    for _, stride in layers:
        jump *= stride
    n = receptive_field(layers) + more * jump
    x = torch.rand(1, 1, n).requires_grad_()
    h = x
    for kernel, stride in layers:
        h = F.conv1d(h, 0.5 + torch.rand(1, 1, kernel), stride=stride)
    assert h.shape[-1] == more + 1
    (gradient,) = torch.autograd.grad(h[0, 0, more], x)
    assert gradient[0, 0].nonzero().flatten().tolist()[0] == more * jump


CIFAR_BASE = [(5, 1), (2, 2), (5, 1), (2, 2), (5, 1), (2, 2)]  # three times convolution and pooling


def test_the_receptive_field_of_the_second_convolution_of_cifar_base_is_14x14():
    """5x5, pooling of size 2, 5x5: a side of 1 + 4 + 1 + 4 * 2 = 14 pixels, for a unit away from the border.

    Average pooling replaces max pooling: it has the same window, and its gradient is nonzero in the whole window.
    """
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(3, 2, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(2, 1, 5, padding=2)),
    ).requires_grad_(False)
    for parameter in network.parameters():
        parameter.uniform_(0.5, 1.5)
    images = torch.rand(1, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(images)[0, 0, 8, 8], images)
    rows, columns = (gradient[0, 0] > 0).nonzero(as_tuple=True)
    assert receptive_field(CIFAR_BASE[:3]) == 14
    assert len(rows) == 14 * 14
    assert int(rows.max() - rows.min()) == int(columns.max() - columns.min()) == 13


def test_the_receptive_field_of_the_third_convolution_of_cifar_base_is_the_image():
    """Each pooling doubles the jump: 5, 6, 14, 16 and then 32 pixels, the side of the image."""
    assert [receptive_field(CIFAR_BASE[:depth]) for depth in range(1, 6)] == [5, 6, 14, 16, 32]

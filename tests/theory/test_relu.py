"""Dead ReLU units, and why leaky ReLU units do not die.

A unit is dead if its pre-activation z = x (*) F + b is negative for every example and at every position.
"""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(1, 4)
assert_equal = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


def dead_layer(seed: int, B: int, C: int, K: int, R: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, filters, and biases such that the maximum pre-activation of each filter is -1."""
    torch.manual_seed(seed)
    images, filters = torch.randn(B, C, R + 3, R + 3), torch.randn(K, C, R, R, requires_grad=True)
    maximum = F.conv2d(images, filters.detach()).amax((0, 2, 3))
    return images, filters, (-maximum - 1).requires_grad_()


def relu_gradients(images: Tensor, filters: Tensor, biases: Tensor, slope: float) -> list[Tensor]:
    """Return gradients of sum(output * dO) for a nonzero dO; `slope` is that for negative inputs, 0 for ReLU."""
    output = F.leaky_relu(F.conv2d(images, filters, biases), slope)
    dO = 1 + torch.arange(output.numel()).double().view_as(output)
    return list(torch.autograd.grad(output, [filters, biases], dO))


@given(seed=SEEDS, B=SIDES, C=SIDES, K=SIDES, R=SIDES)
def test_the_gradients_of_a_dead_relu_are_exactly_zero(seed, B, C, K, R):
    """If all pre-activations are negative, the gradients of filter and bias are exactly 0, for any loss."""
    images, filters, biases = dead_layer(seed, B, C, K, R)
    output = F.relu(F.conv2d(images, filters, biases))
    for gradient in torch.autograd.grad(output, [filters, biases], torch.randn(output.shape)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@given(seed=SEEDS, lr=st.floats(1e-3, 1e3), steps=st.integers(1, 4))
def test_plain_sgd_never_revives_a_dead_relu(seed, lr, steps):
    """With a zero gradient, filter and bias do not change in any bit, so on the same data the unit stays dead."""
    images, filters, biases = dead_layer(seed, B=3, C=2, K=2, R=3)
    before = [filters.detach().clone(), biases.detach().clone()]
    optimizer = torch.optim.SGD([filters, biases], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        (F.relu(F.conv2d(images, filters, biases)) - 1).square().sum().backward()
        optimizer.step()
    assert torch.equal(filters, before[0])
    assert torch.equal(biases, before[1])


@given(seed=SEEDS, slope=st.floats(1e-3, 0.5), B=SIDES, C=SIDES, K=SIDES, R=SIDES)
def test_the_gradient_of_a_leaky_relu_is_slope_times_that_of_the_linear_unit(seed, slope, B, C, K, R):
    """If all pre-activations are negative, leaky ReLU scales the gradient by its slope, so that it is not 0."""
    images, filters, biases = dead_layer(seed, B, C, K, R)
    leaky = relu_gradients(images, filters, biases, slope)
    linear = relu_gradients(images, filters, biases, slope=1.0)
    for leaky_gradient, linear_gradient in zip(leaky, linear, strict=True):
        assert_equal(leaky_gradient, slope * linear_gradient)
        assert leaky_gradient.abs().amin() > 0


@pytest.mark.parametrize(("slope", "recovers"), [(0.0, False), (0.1, True)])
def test_a_leaky_unit_recovers_and_a_relu_does_not(slope, recovers):
    """From pre-activation -2 and with target 1, gradient descent moves a leaky unit to 1 and does not move a ReLU."""
    x, weight_and_bias = torch.tensor([1.0, 1.0]), torch.tensor([-1.0, -1.0], requires_grad=True)  # z = w 1 + b
    optimizer = torch.optim.SGD([weight_and_bias], lr=0.1)
    for _ in range(1000):
        optimizer.zero_grad()
        (F.leaky_relu(weight_and_bias @ x, slope) - 1).square().div(2).backward()
        optimizer.step()
    z = (weight_and_bias.detach() @ x).item()
    assert z == pytest.approx(1.0, abs=1e-10) if recovers else z == -2.0


@given(z=st.floats(-100, 100))
def test_the_derivative_of_relu_is_one_above_zero_and_zero_below_and_at_zero(z):
    """ReLU has no derivative at 0; torch uses 0, which determines what a network of zeros learns."""
    x = torch.tensor(z, requires_grad=True)
    (slope,) = torch.autograd.grad(F.relu(x), x)
    assert float(slope) == (1.0 if z > 0 else 0.0)
    zero = torch.zeros((), requires_grad=True)
    assert float(torch.autograd.grad(F.relu(zero), zero)[0]) == 0.0

"""Batch normalisation and dropout: their invariants, and the gradient of batch norm.

Shapes: B examples, C features.
"""

import math
from functools import partial
from itertools import product

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

SEEDS = st.integers(0, 2**32 - 1)
EXAMPLES, FEATURES = st.integers(3, 10), st.integers(1, 5)
assert_equal = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


def standardise(x_BC: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return (x - mean) / sqrt(variance + eps) over the batch, and the root. The variance divides by B, not B - 1."""
    mean_C = x_BC.sum(0) / len(x_BC)
    variance_C = ((x_BC - mean_C) ** 2).sum(0) / len(x_BC)
    root_C = (variance_C + eps).sqrt()
    return (x_BC - mean_C) / root_C, root_C


def batch_norm_gradient(x_BC: Tensor, dO_BC: Tensor, gamma_C: Tensor, eps: float) -> Tensor:
    """Return gamma / root * (dO - mean(dO) - x^ mean(dO x^)), with means over the batch and x^ the standardised x."""
    x_hat_BC, root_C = standardise(x_BC, eps)
    return gamma_C / root_C * (dO_BC - dO_BC.mean(0) - x_hat_BC * (dO_BC * x_hat_BC).mean(0))


def batch_norm(x_BC: Tensor, gamma_C: Tensor | None = None, beta_C: Tensor | None = None, eps: float = 1e-30) -> Tensor:
    """Batch norm of torch in training. It requires eps > 0; 1e-30 is negligible compared with a variance."""
    return F.batch_norm(x_BC, None, None, gamma_C, beta_C, training=True, eps=eps)


@given(seed=SEEDS, B=EXAMPLES, C=FEATURES, size=st.floats(0.1, 100), centre=st.floats(-100, 100))
def test_batch_norm_gives_mean_0_and_variance_1(seed, B, C, size, centre):
    """For any scale and centre of a feature, its mean over the batch becomes 0 and its variance 1."""
    torch.manual_seed(seed)
    x = centre + size * torch.randn(B, C)
    output = batch_norm(x)
    assert_equal(output, standardise(x, eps=0.0)[0])
    assert_equal(output.mean(0), torch.zeros(C))
    assert_equal(output.var(0, correction=0), torch.ones(C))


@given(seed=SEEDS, B=EXAMPLES, C=FEATURES, factor=st.floats(0.01, 100))
def test_batch_norm_is_invariant_to_the_scale_of_the_weights_before_it(seed, B, C, factor):
    """Weights scaled by c give the same output and a gradient scaled by 1 / c, which is orthogonal to the weights."""
    torch.manual_seed(seed)
    x, weight, dO = torch.randn(B, 4), torch.randn(C, 4, requires_grad=True), torch.randn(B, C)
    scaled = (factor * weight).detach().requires_grad_()
    output, output_scaled = batch_norm(x @ weight.T), batch_norm(x @ scaled.T)
    assert_equal(output, output_scaled)
    (gradient,) = torch.autograd.grad(output, weight, dO)
    (gradient_scaled,) = torch.autograd.grad(output_scaled, scaled, dO)
    assert_equal(gradient_scaled * factor, gradient)
    assert_equal((gradient * weight).sum(1), torch.zeros(C))


@given(seed=SEEDS, B=EXAMPLES, C=FEATURES)
def test_a_bias_before_batch_norm_has_no_effect(seed, B, C):
    """Subtracting the mean removes the bias: the output is the same and the gradient of the bias is 0."""
    torch.manual_seed(seed)
    x, bias = torch.randn(B, C), torch.randn(C, requires_grad=True)
    output = batch_norm(x + bias, eps=1e-5)
    assert_equal(output, batch_norm(x, eps=1e-5))
    (gradient,) = torch.autograd.grad(output, bias, torch.randn(B, C))
    assert_equal(gradient, torch.zeros(C))


@given(seed=SEEDS, B=EXAMPLES, C=FEATURES)
def test_the_gradient_of_batch_norm(seed, B, C):
    """The gradient has no mean and no component along the output: the output cannot change in these directions."""
    torch.manual_seed(seed)
    x, dO = torch.randn(B, C, requires_grad=True), torch.randn(B, C)
    gamma, beta = torch.randn(C, requires_grad=True), torch.randn(C, requires_grad=True)
    output = batch_norm(x, gamma, beta, eps=1e-5)
    dX, dgamma, dbeta = torch.autograd.grad(output, (x, gamma, beta), dO)
    x_hat, _ = standardise(x.detach(), eps=1e-5)
    assert_equal(batch_norm_gradient(x.detach(), dO, gamma.detach(), eps=1e-5), dX)
    assert_equal((dO * x_hat).sum(0), dgamma)
    assert_equal(dO.sum(0), dbeta)


def inverted_dropout(x_C: Tensor, mask: tuple[int, ...], rate: float) -> Tensor:
    """Multiply by the mask and divide by the probability of keeping a value."""
    return x_C * torch.tensor(mask) / (1 - rate)


@given(seed=SEEDS, C=st.integers(1, 6), rate=st.floats(0, 0.9))
def test_inverted_dropout_preserves_the_expectation(seed, C, rate):
    """The sum over all 2^C masks, weighted by their probabilities, of the output of dropout is its input."""
    torch.manual_seed(seed)
    x = torch.randn(C)
    expectation = torch.zeros(C)
    for mask in product((0, 1), repeat=C):
        probability = math.prod(1 - rate if keep else rate for keep in mask)
        expectation += probability * inverted_dropout(x, mask, rate)
    assert_equal(expectation, x)


@given(seed=SEEDS, rate=st.floats(0.05, 0.95))
def test_dropout_of_torch_is_inverted_and_inactive_in_evaluation(seed, rate):
    """Each value is dropped, with the given rate, or divided by 1 - rate; in evaluation values do not change.

    The fraction of n = 10,000 independent values that is dropped has a standard error of sqrt(rate (1 - rate) / n);
    the tolerance is five standard errors.
    """
    torch.manual_seed(seed)
    n, x = 10_000, 1 + torch.rand(10_000)
    output = F.dropout(x, rate, training=True)
    dropped = output == 0
    assert abs(float(dropped.double().mean()) - rate) <= 5 * math.sqrt(rate * (1 - rate) / n)
    assert_equal(output[~dropped], (x / (1 - rate))[~dropped])
    assert torch.equal(F.dropout(x, rate, training=False), x)


def test_dropout_is_transparent_in_evaluation_not_in_training():
    """`nn.Dropout` passes on its input unchanged in evaluation; in training it changes every value to 0 or x / 0.5."""
    layer, x = nn.Dropout(0.5), torch.ones(1000)
    assert torch.equal(layer.eval()(x), x)
    assert layer.train()(x).unique().tolist() == [0.0, 2.0]

"""Softmax with two losses: the gradients of the logits, and which one vanishes for confident mistakes.

p = softmax(z) are the probabilities, y is the one-hot label. Cross-entropy is -log p[label]; the quadratic cost is
half the squared error, |p - y|^2 / 2. Both are averaged over the batch. Shapes: B examples, K classes.
"""

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from modules.base import quadratic_loss

SEEDS = st.integers(0, 2**32 - 1)
CLASSES = st.integers(2, 10)
assert_equal = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


def softmax(z: list[float]) -> list[float]:
    """p[k] = exp(z[k]) / sum over j of exp(z[j])."""
    exponentials = [math.exp(value) for value in z]
    return [value / sum(exponentials) for value in exponentials]


def softmax_jacobian(p_K: Tensor) -> Tensor:
    """dp[k] / dz[j] = p[k] (1 - p[k]) if j = k, otherwise -p[k] p[j]."""
    K = len(p_K)
    jacobian_KK = torch.empty(K, K)
    for k in range(K):
        for j in range(K):
            jacobian_KK[k, j] = p_K[k] * (1 - p_K[k]) if j == k else -p_K[k] * p_K[j]
    return jacobian_KK


def cross_entropy_gradient(p_BK: Tensor, y_BK: Tensor) -> Tensor:
    """dL/dz = p - y for each example; the mean over the batch divides by B."""
    return (p_BK - y_BK) / len(p_BK)


def quadratic_gradient(p_BK: Tensor, y_BK: Tensor) -> Tensor:
    """dL/dz[j] = sum over k of (p[k] - y[k]) dp[k]/dz[j] for each example; the mean over the batch divides by B."""
    return torch.stack([(p - y) @ softmax_jacobian(p) for p, y in zip(p_BK, y_BK, strict=True)]) / len(p_BK)


def batch(seed: int, B: int, K: int) -> tuple[Tensor, Tensor]:
    """Return logits with a standard deviation of 3, which require a gradient, and labels."""
    torch.manual_seed(seed)
    return (3 * torch.randn(B, K)).requires_grad_(), torch.randint(K, (B,))


def confidently_wrong(seed: int, K: int, margin: float) -> tuple[Tensor, Tensor]:
    """Return one example of class 0, for which the logit of class 1 is about `margin` above all others."""
    torch.manual_seed(seed)
    logits = torch.rand(1, K)
    logits[0, 1] += margin
    return logits.requires_grad_(), torch.tensor([0])


@given(seed=SEEDS, B=st.integers(1, 6), K=CLASSES)
def test_the_gradient_of_cross_entropy_is_p_minus_y(seed, B, K):
    """The gradient of softmax cross-entropy with respect to the logits is p - y, divided by B for a batch mean."""
    logits, labels = batch(seed, B, K)
    (by_autograd,) = torch.autograd.grad(F.cross_entropy(logits, labels), logits)
    p = torch.tensor([softmax(z) for z in logits.tolist()])
    assert_equal(cross_entropy_gradient(p, F.one_hot(labels, K)), by_autograd)


@given(seed=SEEDS, K=CLASSES)
def test_the_gradients_of_the_logits_add_up_to_zero(seed, K):
    """Since p and y both add up to 1, p - y adds up to 0."""
    logits, labels = batch(seed, 1, K)
    for loss in (F.cross_entropy, quadratic_loss):
        (gradient,) = torch.autograd.grad(loss(logits, labels), logits)
        assert float(gradient.sum()) == pytest.approx(0, abs=1e-14)


@given(seed=SEEDS, K=CLASSES, constant=st.floats(-1e4, 1e4))
def test_adding_a_constant_to_all_logits_changes_nothing(seed, K, constant):
    """Softmax is invariant to adding a constant to all logits, which cancels in the fraction."""
    logits, _ = batch(seed, 1, K)
    assert_equal((logits + constant).softmax(1), torch.tensor([softmax(logits[0].tolist())]))


@given(seed=SEEDS, K=CLASSES)
def test_the_jacobian_of_softmax(seed, K):
    """The derivative of softmax is diag(p) - p p^T."""
    logits, _ = batch(seed, 1, K)
    by_autograd = torch.autograd.functional.jacobian(lambda z: z.softmax(0), logits[0].detach())
    p = logits[0].detach().softmax(0)
    assert_equal(softmax_jacobian(p), by_autograd)
    assert_equal(softmax_jacobian(p), p.diag() - torch.outer(p, p))


@given(z=st.floats(-20, 20))
def test_the_derivative_of_the_sigmoid_is_s_times_1_minus_s(z):
    """The sigmoid s is the softmax of two classes with logits z and 0; its derivative s (1 - s) is at most 1/4."""
    logit = torch.tensor(z, requires_grad=True)
    (slope,) = torch.autograd.grad(logit.sigmoid(), logit)
    s = float(logit.detach().sigmoid())
    assert s == pytest.approx(softmax([z, 0.0])[0], abs=1e-14)
    assert float(slope) == pytest.approx(s * (1 - s), abs=1e-14)
    assert float(slope) <= 1 / 4


@given(seed=SEEDS, K=CLASSES, p=st.floats(0.51, 0.99))
def test_an_image_with_a_probability_above_one_half_is_seen_as_that_class(seed, K, p):
    """An image with p(mink) = 0.978 is seen as a mink, not "as jellyfish": all other classes share 0.022."""
    logits, _ = batch(seed, 1, K)
    others = logits[0, 1:].detach()
    target = others.logsumexp(0) + math.log(p / (1 - p))
    probabilities = torch.cat([target[None], others]).softmax(0)
    assert float(probabilities[0]) == pytest.approx(p, abs=1e-12)
    assert int(probabilities.argmax()) == 0


@given(seed=SEEDS, B=st.integers(1, 6), K=CLASSES)
def test_the_gradient_of_the_quadratic_cost_contains_the_jacobian_of_softmax(seed, B, K):
    """The gradient of |softmax(z) - y|^2 / 2 is (p - y) times the Jacobian of softmax."""
    logits, labels = batch(seed, B, K)
    p, y = logits.detach().softmax(1), F.one_hot(labels, K).double()
    loss = quadratic_loss(logits, labels)
    assert_equal(loss, (p - y).norm(dim=1).square().mean() / 2)
    (by_autograd,) = torch.autograd.grad(loss, logits)
    assert_equal(quadratic_gradient(p, y), by_autograd)


@given(seed=SEEDS, K=CLASSES, margin=st.floats(3, 40))
def test_for_a_confident_mistake_the_quadratic_gradient_vanishes_and_that_of_cross_entropy_does_not(seed, K, margin):
    """If the wrong class has probability 1 - d, the quadratic gradient is at most 4 d, the other at least 2 (1 - d).

    Gradients are measured by their sum of absolute values. p[k] |e[k] - sum p e|, with errors e = p - y between -1 and
    1, is at most 2 d for the other classes together, which have probability d, and at most 2 d for the wrong class,
    whose own error cancels. For cross-entropy, |p - y| = 2 (1 - p[label]), and p[label] is at most d.
    """
    logits, label = confidently_wrong(seed, K, margin)
    p = logits.detach().softmax(1)[0]
    d = float(p[0] + p[2:].sum())
    (quadratic,) = torch.autograd.grad(quadratic_loss(logits, label), logits)
    (cross_entropy,) = torch.autograd.grad(F.cross_entropy(logits, label), logits)
    assert float(quadratic.abs().sum()) <= 4 * d + 1e-14
    assert float(cross_entropy.abs().sum()) >= 2 * (1 - d) - 1e-14


@pytest.mark.parametrize("margin", [1.0, 5.0, 10.0, 20.0])
def test_for_two_classes_the_quadratic_gradient_is_2_q_times_1_minus_q_squared(margin):
    """With probability q of the correct class, the gradients of its logit are -2 q (1 - q)^2 and q - 1."""
    logits, label = torch.tensor([[0.0, margin]], requires_grad=True), torch.tensor([0])
    q = 1 / (1 + math.exp(margin))
    (quadratic,) = torch.autograd.grad(quadratic_loss(logits, label), logits)
    (cross_entropy,) = torch.autograd.grad(F.cross_entropy(logits, label), logits)
    slope = 2 * q * (1 - q) ** 2
    assert quadratic[0].tolist() == pytest.approx([-slope, slope], abs=1e-14)
    assert cross_entropy[0].tolist() == pytest.approx([q - 1, 1 - q], abs=1e-14)

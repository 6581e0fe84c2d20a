"""Why training metrics of the first epoch are worse than test metrics: they are averaged while the weights improve.

The reported training loss of an epoch is the mean of the losses before each step. On the same data, the weights at the
end of the epoch have a lower loss.
"""

from fractions import Fraction

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

WHOLE = st.integers(-20, 20).map(Fraction)
RATES = st.integers(1, 9).map(lambda tenths: Fraction(tenths, 10))


def loss(w: Fraction, points: list[Fraction]) -> Fraction:
    """Mean of (w - x)^2 / 2 over the points x, in fractions, so without rounding errors."""
    return sum(((w - x) ** 2 for x in points), Fraction(0)) / (2 * len(points))


def gradient_descent(w: Fraction, points: list[Fraction], lr: Fraction, steps: int) -> tuple[list[Fraction], Fraction]:
    """Return the losses before each step, and the final w. The gradient of the loss is w - mean(x)."""
    mean = sum(points, Fraction(0)) / len(points)
    losses = []
    for _ in range(steps):
        losses.append(loss(w, points))
        w -= lr * (w - mean)
    return losses, w


@given(points=st.lists(WHOLE, min_size=1, max_size=5), distance=st.integers(1, 20), lr=RATES, steps=st.integers(1, 20))
def test_the_average_loss_during_training_is_above_the_final_loss(points, distance, lr, steps):
    """For gradient descent on a parabola, the mean of the losses before each step is above the final loss.

    With q = (1 - lr)^2 and the initial distance d from the minimum, the loss after t steps is the minimum loss plus
    q^t d^2 / 2. In the mean over t = 0 ... T - 1, q^t is replaced by (1 - q^T) / (T (1 - q)).
    """
    minimum = sum(points, Fraction(0)) / len(points)
    losses, w = gradient_descent(minimum + distance, points, lr, steps)
    average, final = sum(losses) / steps, loss(w, points)
    q, minimum_loss = (1 - lr) ** 2, loss(minimum, points)
    assert average == minimum_loss + Fraction(distance**2, 2) * (1 - q**steps) / (steps * (1 - q))
    assert final == minimum_loss + Fraction(distance**2, 2) * q**steps
    assert average > final


@given(points=st.lists(WHOLE, min_size=1, max_size=5), distance=st.integers(1, 20), steps=st.integers(1, 10))
def test_the_gap_is_caused_by_the_improvement(points, distance, steps):
    """With learning rate 0 there is no gap, and with a learning rate that is too large its sign changes."""
    start = sum(points, Fraction(0)) / len(points) + distance
    losses, w = gradient_descent(start, points, Fraction(0), steps)
    assert sum(losses) / steps == loss(w, points)
    losses, w = gradient_descent(start, points, Fraction(5, 2), steps)
    assert sum(losses) / steps < loss(w, points)


@given(xs=st.lists(st.integers(-9, 9).map(Fraction), min_size=1, max_size=12), lr=st.integers(1, 10))
def test_the_gap_exists_in_one_epoch_of_sgd_with_batch_size_1(xs, lr):
    """One epoch of SGD with one example per step fits y = 3 x, without noise, from w = 0.

    Each step moves w towards 3 or does not change it, since lr x^2 is at most 1. So the final loss of each example is
    at most the loss measured in its step, and below it if w changed in that step.
    """
    rate, w, measured = Fraction(lr, 10 * 81), Fraction(0), []
    for x in xs:
        error = (w - 3) * x
        measured.append(error**2 / 2)
        w -= rate * error * x
    final = [((w - 3) * x) ** 2 / 2 for x in xs]
    assert all(after <= before for after, before in zip(final, measured, strict=True))
    if any(xs):
        assert sum(final) < sum(measured)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(4, 20), K=st.integers(2, 4), steps=st.integers(1, 20))
def test_the_gap_exists_for_softmax_regression(seed, n, K, steps):
    """Softmax regression is convex: with lr <= 1 / L each step decreases the loss, so the average is above the final.

    L bounds the curvature, which is at most 1/2 for log-sum-exp, times the mean of |x|^2 over the examples.
    """
    torch.manual_seed(seed)
    x, labels = torch.randn(n, 3), torch.randint(K, (n,))
    lr = 1 / (0.5 * float(x.square().sum(1).mean()))
    weight = torch.zeros(K, 3, requires_grad=True)
    losses = []
    for _ in range(steps):
        step_loss = F.cross_entropy(x @ weight.T, labels)
        losses.append(step_loss.item())
        (gradient,) = torch.autograd.grad(step_loss, weight)
        weight = (weight - lr * gradient).detach().requires_grad_()
    final = F.cross_entropy(x @ weight.T, labels).item()
    assert all(later < earlier for earlier, later in zip(losses, [*losses[1:], final], strict=True))
    assert sum(losses) / steps > final

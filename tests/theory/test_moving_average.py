"""Why the training figure of the first epoch is worse than the test figure: it is taken while the weights improve.

The loss that is reported for an epoch is the mean of the losses before each step. The weights at the end of the epoch
are better than that, on the very same data.
"""

from fractions import Fraction

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

WHOLE = st.integers(-20, 20).map(Fraction)
RATES = st.integers(1, 9).map(lambda tenths: Fraction(tenths, 10))


def loss(w: Fraction, points: list[Fraction]) -> Fraction:
    """How far w is from the points: mean of (w - x)^2 / 2, in fractions, so without any rounding."""
    return sum(((w - x) ** 2 for x in points), Fraction(0)) / (2 * len(points))


def descend(w: Fraction, points: list[Fraction], lr: Fraction, steps: int) -> tuple[list[Fraction], Fraction]:
    """Losses before each step, and the final w. The gradient of the loss is w - mean(x)."""
    mean = sum(points, Fraction(0)) / len(points)
    losses = []
    for _ in range(steps):
        losses.append(loss(w, points))
        w -= lr * (w - mean)
    return losses, w


@given(points=st.lists(WHOLE, min_size=1, max_size=5), distance=st.integers(1, 20), lr=RATES, steps=st.integers(1, 20))
def test_the_average_while_learning_is_above_the_loss_afterwards(points, distance, lr, steps):
    """Gradient descent on a parabola: the mean of the losses on the way is above the loss of the final weight.

    Exactly: with q = (1 - lr)^2 and the distance d from the minimum at the start, the loss after t steps is that of
    the minimum plus q^t d^2 / 2. The mean over t = 0 ... T - 1 replaces q^t by (1 - q^T) / (T (1 - q)).
    """
    minimum = sum(points, Fraction(0)) / len(points)
    losses, w = descend(minimum + distance, points, lr, steps)
    average, afterwards = sum(losses) / steps, loss(w, points)
    q, floor = (1 - lr) ** 2, loss(minimum, points)
    assert average == floor + Fraction(distance**2, 2) * (1 - q**steps) / (steps * (1 - q))
    assert afterwards == floor + Fraction(distance**2, 2) * q**steps
    assert average > afterwards


@given(points=st.lists(WHOLE, min_size=1, max_size=5), distance=st.integers(1, 20), steps=st.integers(1, 10))
def test_it_is_the_improvement_that_makes_the_gap(points, distance, steps):
    """No learning, no gap: with learning rate 0 both are equal; and with one too large the gap changes its sign."""
    start = sum(points, Fraction(0)) / len(points) + distance
    losses, w = descend(start, points, Fraction(0), steps)
    assert sum(losses) / steps == loss(w, points)
    losses, w = descend(start, points, Fraction(5, 2), steps)
    assert sum(losses) / steps < loss(w, points)


@given(xs=st.lists(st.integers(-9, 9).map(Fraction), min_size=1, max_size=12), lr=st.integers(1, 10))
def test_one_epoch_of_single_examples(xs, lr):
    """The same in one epoch of SGD, one example a step: y = 3 x is learnt exactly, from w = 0, without noise.

    Each step brings w closer to 3 or leaves it, since lr x^2 is at most 1; so every example's loss at the end is at
    most the one that was measured when its turn came, and below it if w moved at that step.
    """
    rate, w, measured = Fraction(lr, 10 * 81), Fraction(0), []
    for x in xs:
        error = (w - 3) * x
        measured.append(error**2 / 2)
        w -= rate * error * x
    afterwards = [((w - 3) * x) ** 2 / 2 for x in xs]
    assert all(after <= before for after, before in zip(afterwards, measured, strict=True))
    if any(xs):
        assert sum(afterwards) < sum(measured)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(4, 20), K=st.integers(2, 4), steps=st.integers(1, 20))
def test_softmax_regression_shows_it_too(seed, n, K, steps):
    """Softmax regression is convex; with lr at most 1 / L every step lowers its loss, so the average is above the end.

    L bounds the curvature: that of log sum exp is at most 1/2, times the mean of |x|^2 over the examples.
    """
    torch.manual_seed(seed)
    x, labels = torch.randn(n, 3), torch.randint(K, (n,))
    lr = 1 / (0.5 * float(x.square().sum(1).mean()))
    weight = torch.zeros(K, 3, requires_grad=True)
    losses = []
    for _ in range(steps):
        before = F.cross_entropy(x @ weight.T, labels)
        losses.append(before.item())
        (gradient,) = torch.autograd.grad(before, weight)
        weight = (weight - lr * gradient).detach().requires_grad_()
    afterwards = F.cross_entropy(x @ weight.T, labels).item()
    assert all(later < earlier for earlier, later in zip(losses, [*losses[1:], afterwards], strict=True))
    assert sum(losses) / steps > afterwards

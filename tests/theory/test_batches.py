"""Batches of stochastic gradient descent: how many there are, and how their size changes the noise of a step."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import product

import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.circles import Circles

GRADIENTS = st.lists(st.integers(-20, 20).map(Fraction), min_size=2, max_size=3)
SIZES = st.integers(1, 2)
K = 4  # how much larger the second batch is; the square root of 4 is 2


def mean_and_variance(gradients: Sequence[Fraction], batch: int, lr: Fraction) -> tuple[Fraction, Fraction]:
    """Return mean and variance of a step, lr times the mean gradient of a batch, over all batches that can be drawn.

    Each example of a batch is drawn independently, with its gradient; all batches have the same probability.
    """
    steps = [lr * sum(drawn, Fraction(0)) / batch for drawn in product(gradients, repeat=batch)]
    mean = sum(steps, Fraction(0)) / len(steps)
    return mean, sum(((step - mean) ** 2 for step in steps), Fraction(0)) / len(steps)


@given(gradients=GRADIENTS, batch=SIZES)
def test_k_times_the_batch_keeps_the_variance_of_a_step_with_the_square_root_of_k_times_the_rate(gradients, batch):
    """The variance of a mean of B gradients is 1/B of that of one, and lr^2 times that for a step."""
    lr = Fraction(1, 10)
    _, small = mean_and_variance(gradients, batch, lr)
    _, root = mean_and_variance(gradients, K * batch, 2 * lr)
    assert root == small


@given(gradients=GRADIENTS, batch=SIZES)
def test_k_times_the_batch_with_k_times_the_rate_has_k_times_the_variance_and_the_mean_of_k_steps(gradients, batch):
    """What k times the rate keeps is the mean change per epoch: one step instead of k."""
    lr = Fraction(1, 10)
    mean, small = mean_and_variance(gradients, batch, lr)
    scaled_mean, scaled = mean_and_variance(gradients, K * batch, K * lr)
    assert scaled == K * small
    assert scaled_mean == K * mean


def test_an_epoch_has_as_many_batches_as_cover_the_training_set_not_one():
    """An epoch of 200 points in batches of 10 has 20 steps, in which each point is used once."""
    data = Circles(n_train=200, batch_size=10)
    data.setup("fit")
    batches = [points for points, _ in data.train_dataloader()]
    assert len(batches) == 20
    used, points = torch.cat(batches), data.train_set.inputs
    assert torch.equal(used.sort(dim=0).values, points.sort(dim=0).values)

"""Confidence intervals that hold for k configurations at once, so also for the one that was chosen on the test set.

Each has the level 0.95 ** (1 / k) in place of 0.95. Then all k together contain their true values in 95 % of the cases
or more, and the chosen one does, however it was chosen (Z. Sidak, Journal of the American Statistical Association 62,
1967). The true value of a configuration is its mean over all seeds and over all examples that the test set is a sample
of. Two errors add up: that of n seeds (Student's t, as in intervals.py), and, for an accuracy, that of a test set of
finite size (C. J. Clopper and E. S. Pearson, Biometrika 26, 1934). More seeds do not reduce the second one: their
networks may all err on the same examples. The distances of both intervals to the mean are added in quadrature (G. Y.
Zou and A. Donner, Statistics in Medicine 27, 2008).

Of one run, whose spread over seeds is unknown, it is the interval of the trained network. Of metrics that are no
accuracy, the error of the test set is unknown: the interval is for this test set. Imports nothing heavy.
"""

import math
import statistics
from collections.abc import Sequence

from pipelines.comparison.intervals import LEVEL, UNBOUNDED, Interval, cut_interval, t_interval


def corrected_interval(
    values: Sequence[float],
    k: int,
    examples: int | None = None,
    bounds: Interval = UNBOUNDED,
    overlap: float = 0.0,
) -> Interval | None:
    """Return the interval of one of k configurations that holds for all of them at once.

    Args:
        values: Its metric for each seed.
        k: Number of configurations that were evaluated on the test set.
        examples: For an accuracy, the number of examples of the test set; None if it is unknown, or for other metrics.
        bounds: The lowest and highest value that there can be, which cut off the interval.
        overlap: See `intervals.summarize`.

    Returns:
        None for a single value of a metric that is no accuracy, or whose number of examples is unknown.
    """
    mean, n, level = statistics.fmean(values), len(values), LEVEL ** (1 / k)
    parts = []
    if n > 1:
        error = statistics.stdev(values) * math.sqrt(1 / n + overlap)
        parts.append(t_interval(mean, error, n - 1, level))
    if examples is not None:
        parts.append(binomial_interval(mean, examples, level))
    if not parts:
        return None
    below, above = math.hypot(*(mean - low for low, _ in parts)), math.hypot(*(high - mean for _, high in parts))
    return cut_interval((mean - below, mean + above), bounds)


def binomial_interval(share: float, examples: int, level: float) -> Interval:
    """Return the exact interval of a proportion, of which a share was seen in some examples; it may be a mean."""
    from scipy.special import betaincinv

    count, tail = share * examples, (1 - level) / 2
    low = float(betaincinv(count, examples - count + 1, tail)) if count > 0 else 0.0
    high = float(betaincinv(count + 1, examples - count, 1 - tail)) if count < examples else 1.0
    return low, high

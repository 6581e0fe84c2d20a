"""Confidence intervals of means over seeds and of differences between them. Imports nothing heavy.

All intervals are two-sided 95 % intervals of Student's t distribution: of a mean over n seeds with n - 1 degrees of
freedom, of the mean of paired differences likewise, and of the difference of two means without pairs by Welch's method
(B. L. Welch, Biometrika 34, 1947). Where the values are bounded, as a proportion is by 0 and 1 and a duration by 0, the
interval is cut off at the bounds: the true mean is within them, so the cut interval contains it exactly as often
(M. Mandelkern, Statistical Science 17, 2002). Each interval is of one comparison: of twenty rows that do not differ,
one is expected outside the noise by chance.

The runs of K folds share training examples, so their results are not independent, and the usual intervals are too
narrow. The variance of the mean is therefore multiplied by 1 + n * overlap, with overlap = 1 / (K - 1), the ratio of
validation to training examples (C. Nadeau and Y. Bengio, Machine Learning 52, 2003).
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEVEL = 0.95
Interval = tuple[float, float]
UNBOUNDED: Interval = (-math.inf, math.inf)
ROUNDING = 1e-12  # of a difference, as a share of the values


@dataclass(frozen=True)
class Summary:
    """Mean and spread of n values.

    Attributes:
        mean: Mean of the values.
        sd: Standard deviation of the values (n - 1 in the denominator); None for a single value.
        n: Number of values.
        ci95: Lower and upper end of the 95 % interval of the mean; None for a single value.
    """

    mean: float
    sd: float | None
    n: int
    ci95: Interval | None


@dataclass(frozen=True)
class Difference:
    """Difference between the means of two rows.

    Attributes:
        mean: Mean of the row minus mean of the reference; for pairs, the mean of their differences.
        ci95: 95 % interval of the difference; None for too few values, and for two equal differences of values that
            vary, which tell nothing about their spread.
        n: Number of pairs; without pairs, number of values on the smaller side.
        paired: Whether the values were compared in pairs.
    """

    mean: float
    ci95: Interval | None
    n: int
    paired: bool

    @property
    def within_noise(self) -> bool | None:
        """Whether the interval contains 0; None without an interval."""
        return None if self.ci95 is None else self.ci95[0] <= 0 <= self.ci95[1]


def summarize(values: Sequence[float], bounds: Interval = UNBOUNDED, overlap: float = 0.0) -> Summary:
    """Return mean, standard deviation and 95 % interval of at least one value.

    Args:
        values: The values.
        bounds: The lowest and highest value that there can be, see `metric_names.bounds_of`; they cut off the interval.
        overlap: For runs of K folds 1 / (K - 1), otherwise 0.
    """
    mean, n = statistics.fmean(values), len(values)
    if n < 2:
        return Summary(mean, None, n, None)
    sd = statistics.stdev(values)
    return Summary(mean, sd, n, cut_interval(t_interval(mean, sd * math.sqrt(1 / n + overlap), n - 1), bounds))


def paired_difference(
    values: Mapping[Any, float], reference: Mapping[Any, float], bounds: Interval = UNBOUNDED, overlap: float = 0.0
) -> Difference:
    """Return the difference of two means, paired by the keys that both have in common, such as seeds.

    With fewer than two pairs, all values of both sides are compared without pairs (Welch). `bounds` are those of the
    values; the difference of two values has bounds, too. For `overlap` see `summarize`.
    """
    shared = [key for key in values if key in reference]
    low, high = bounds
    widest = low - high, high - low
    if len(shared) > 1:
        pairs = summarize([values[key] - reference[key] for key in shared], widest, overlap)
        ours = [values[key] for key in shared]
        rounding = ROUNDING * max(map(abs, (*ours, *reference.values())))
        is_chance = pairs.n == 2 and (pairs.sd or 0.0) <= rounding < min(abs(pairs.mean), abs(ours[0] - ours[1]))
        interval = None if is_chance else pairs.ci95
        return Difference(pairs.mean, interval, pairs.n, paired=True)
    one, two = summarize(list(values.values())), summarize(list(reference.values()))
    interval = _welch_interval(one, two, overlap)
    cut = None if interval is None else cut_interval(interval, widest)
    return Difference(one.mean - two.mean, cut, min(one.n, two.n), paired=False)


def _welch_interval(one: Summary, two: Summary, overlap: float) -> Interval | None:
    if one.sd is None or two.sd is None:
        return None
    difference = one.mean - two.mean
    error = math.hypot(one.sd / math.sqrt(one.n), two.sd / math.sqrt(two.n))
    if error == 0:
        return difference, difference
    share = (one.sd / error) ** 2 / one.n  # of the variance; squares of the errors themselves could underflow
    freedom = welch_freedom(share, one.n - 1, two.n - 1)
    return t_interval(difference, math.hypot(error, math.sqrt(overlap) * math.hypot(one.sd, two.sd)), freedom)


def welch_freedom(share: float, one: float, two: float) -> float:
    """Return the degrees of freedom of a difference of two independent means (Welch and Satterthwaite).

    Args:
        share: Share of the first side in the variance of the difference.
        one: Degrees of freedom of the first side.
        two: Degrees of freedom of the second side.
    """
    return 1 / (share**2 / one + (1 - share) ** 2 / two)


def cut_interval(interval: Interval, bounds: Interval) -> Interval:
    """Return an interval, cut off at the lowest and highest value that there can be."""
    return max(interval[0], bounds[0]), min(interval[1], bounds[1])


def t_interval(mean: float, error: float, freedom: float, level: float = LEVEL) -> Interval:
    """Return the interval of a mean, by its standard error and the degrees of freedom of that."""
    from scipy.special import stdtrit

    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    return mean - half, mean + half

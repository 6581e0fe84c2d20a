"""Means over seeds, how far to trust them, and whether two of them differ; imports nothing heavy.

All intervals are two-sided 95 % intervals of Student's t distribution: of a mean over n seeds with n - 1 degrees of
freedom, of the mean of paired differences likewise, and of the difference of two means without pairs as Welch does it
(B. L. Welch, Biometrika 34, 1947). Each is of one comparison: among twenty rows that are alike, one is expected
outside the noise by chance.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEVEL = 0.95
Interval = tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """What n values say of their mean.

    Attributes:
        mean: Of the values.
        sd: Standard deviation between them (n - 1 in the denominator); None for a single one.
        n: How many.
        ci95: Lower and upper end of the 95 % interval of the mean; None for a single one.
    """

    mean: float
    sd: float | None
    n: int
    ci95: Interval | None


@dataclass(frozen=True)
class Difference:
    """How far one row is from another.

    Attributes:
        mean: This one's mean less the other's; of pairs, the mean of their differences.
        ci95: Its 95 % interval; None if there are too few values to say.
        n: The number of pairs; without pairs, of values on the smaller side.
        paired: Whether values were compared pair by pair.
    """

    mean: float
    ci95: Interval | None
    n: int
    paired: bool

    @property
    def within_noise(self) -> bool | None:
        """Whether the interval holds 0, so that there may be no difference; None if it cannot be said."""
        return None if self.ci95 is None else self.ci95[0] <= 0 <= self.ci95[1]


def summarize(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and interval of at least one value."""
    mean, n = statistics.fmean(values), len(values)
    if n < 2:
        return Summary(mean, None, n, None)
    sd = statistics.stdev(values)
    return Summary(mean, sd, n, _interval(mean, sd / math.sqrt(n), n - 1))


def prediction_interval(of: Summary) -> Interval:
    """Where one more value is expected, with 95 % probability; of at least two values."""
    assert of.sd is not None
    return _interval(of.mean, of.sd * math.sqrt(1 + 1 / of.n), of.n - 1)


def paired_difference(these: Mapping[Any, float], others: Mapping[Any, float]) -> Difference:
    """How far the mean of these values is from that of others, by the pairs that have a key in common, such as a seed.

    With fewer than two such pairs, all values of both sides are compared, without pairs (Welch).
    """
    shared = [key for key in these if key in others]
    if len(shared) > 1:
        of_pairs = summarize([these[key] - others[key] for key in shared])
        return Difference(of_pairs.mean, of_pairs.ci95, of_pairs.n, paired=True)
    one, two = summarize(list(these.values())), summarize(list(others.values()))
    return Difference(one.mean - two.mean, _welch(one, two), min(one.n, two.n), paired=False)


def _welch(one: Summary, two: Summary) -> Interval | None:
    if one.sd is None or two.sd is None:
        return None
    apart = one.mean - two.mean
    error = math.hypot(one.sd / math.sqrt(one.n), two.sd / math.sqrt(two.n))
    if error == 0:
        return apart, apart
    share = (one.sd / error) ** 2 / one.n  # of the variance; squares of the errors themselves could be too small
    freedom = 1 / (share**2 / (one.n - 1) + (1 - share) ** 2 / (two.n - 1))
    return _interval(apart, error, freedom)


def _interval(mean: float, error: float, freedom: float) -> Interval:
    from scipy.special import stdtrit

    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    return mean - half, mean + half

"""Means and differences of means with their standard errors: 95 % intervals, and p-values against limits."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipelines.comparison.intervals import Interval, t_interval, welch_freedom
from sweeps.reproduction.measurements import Deterministic, Values

PAIRS = 3  # fewer are not compared in pairs: two differences that are equal by chance would have no spread


@dataclass(frozen=True)
class Estimate:
    """An estimated mean, or difference of two means.

    Attributes:
        mean: The estimate.
        error: Its standard error; 0 if the value is known exactly.
        freedom: Degrees of freedom of the standard error.
        n: Number of runs, of the smaller side of a difference.
        paired: Whether the sides of a difference were compared seed by seed.
    """

    mean: float
    error: float
    freedom: float
    n: int
    paired: bool = False

    @property
    def interval(self) -> Interval:
        """The two-sided 95 % interval of the true value."""
        return t_interval(self.mean, self.error, self.freedom)

    def one_more_run(self) -> "Estimate":
        """Return the value of one more run as it can be expected; its interval is the prediction interval."""
        return replace(self, error=self.error * math.sqrt(self.n + 1))

    def with_variance(self, variance: float) -> "Estimate":
        """Return the estimate with a further source of error, whose variance is known.

        The degrees of freedom stay, so that the interval is never narrower; it covers at least 95 %.
        """
        return replace(self, error=math.hypot(self.error, math.sqrt(variance)))

    def p_value(self, limit: float) -> float:
        """Return the two-sided p-value of the true mean being the limit; it is below 0.05 outside of the interval."""
        from scipy.special import stdtr

        if self.error == 0:
            return float(self.mean == limit)
        return float(2 * stdtr(self.freedom, -abs(self.mean - limit) / self.error))


def estimate_mean(values: Values) -> Estimate | None:
    """Return the mean over the seeds; None if the spread is unknown, since there is one run."""
    numbers = list(values.values())
    if isinstance(values, Deterministic):
        return Estimate(numbers[0], 0.0, math.inf, 1)
    if len(numbers) < 2:
        return None
    n = len(numbers)
    return Estimate(statistics.fmean(numbers), statistics.stdev(numbers) / math.sqrt(n), n - 1, n)


def estimate_difference(values: Values, others: Values, *, paired: bool) -> Estimate | None:
    """Return the difference of two means; None if the spread of a side is unknown.

    Args:
        values: Values of one side, by seed.
        others: Values of the other side.
        paired: Compare the seeds that both sides have, if there are enough; otherwise by Welch's method.
    """
    shared = [seed for seed in values if seed in others]
    if paired and len(shared) >= PAIRS:
        pairs = estimate_mean({seed: values[seed] - others[seed] for seed in shared})
        return pairs and replace(pairs, paired=True)
    one, two = estimate_mean(values), estimate_mean(others)
    return None if one is None or two is None else _welch(one, two)


def _welch(one: Estimate, two: Estimate) -> Estimate:
    """Return the difference of two independent means, with the degrees of freedom of Welch and Satterthwaite."""
    difference, error = one.mean - two.mean, math.hypot(one.error, two.error)
    if error == 0:
        return Estimate(difference, 0.0, math.inf, 1)
    share = (one.error / error) ** 2  # of the variance
    freedom = welch_freedom(share, one.freedom, two.freedom)
    uncertain = [side.n for side in (one, two) if side.error > 0]
    return Estimate(difference, error, freedom, min(uncertain))


def binomial_variance(accuracy: float, examples: int) -> float:
    """Return the variance of an accuracy on randomly drawn examples; 0 if their number is unknown (0)."""
    share = min(max(accuracy, 0.0), 1.0)
    return share * (1 - share) / examples if examples else 0.0


def adjusted_p_values(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted after Benjamini and Hochberg: of those up to 0.05, at most 5 % are chance on average."""
    from scipy.stats import false_discovery_control

    return [float(p) for p in false_discovery_control(p_values)] if p_values else []

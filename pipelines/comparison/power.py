"""How many seeds a question needs: for a difference that a reader states, never for the one that was observed.

The power is that of a two-sided paired t-test at 5 %. The standard deviation of the differences between pairs is not
known but estimated, so the number of seeds is a range: that of the 95 % interval of the standard deviation. Imports
nothing heavy.
"""

import math
import statistics

from pipelines.comparison.intervals import LEVEL
from pipelines.comparison.row import Row, overlap
from pipelines.comparison.rows import Comparison
from pipelines.runtime.errors import UserError

POWER = 0.80
MOST = 1000  # seeds; more are not considered
_LARGE = 30.0  # a noncentrality at which the power is above 0.98 for any number of seeds


def power_notes(comparison: Comparison, smallest: float) -> list[str]:
    """Return for each row whose difference is undecided how many seeds show the smallest difference of interest.

    Raises:
        UserError: The difference is not above 0.
    """
    if not 0 < smallest < math.inf:
        raise UserError(f"--min_effect {smallest:g}: expected a number above 0, the smallest difference of interest")
    undecided = [row for row in comparison.rows if row.difference and row.difference.within_noise is not False]
    return [f"row {row.number} is undecided: {_note(row, smallest)}" for row in undecided]


def _note(row: Row, smallest: float) -> str:
    assert row.baseline is not None
    pairs = [row.values[key] - row.baseline.values[key] for key in row.values if key in row.baseline.values]
    spread = statistics.stdev(pairs) if len(pairs) > 1 else 0.0
    if not spread:
        return f"two or more seeds in common with row {row.baseline.number} tell the spread first, if they differ"
    shared = max(overlap(row.runs), overlap(row.baseline.runs))
    fewest, most = (seeds_needed(smallest, sd, shared) for sd in sd_interval(spread, len(pairs)))
    what = f"a difference of {smallest:g} shows with {POWER * 100:g} % power"
    if fewest is None:
        return f"{what} only with more than {MOST} seeds; it has {len(pairs)}"
    seeds = f"{fewest}" if fewest == most else f"{fewest} to {most or f'more than {MOST}'}"
    return f"{what} from {seeds} seeds; it has {len(pairs)}"


def sd_interval(sd: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a standard deviation that was estimated from n normal values."""
    from scipy.stats import chi2

    ends = chi2.ppf([(1 + LEVEL) / 2, (1 - LEVEL) / 2], n - 1)
    return sd * math.sqrt((n - 1) / ends[0]), sd * math.sqrt((n - 1) / ends[1])


def seeds_needed(difference: float, sd: float, overlap: float = 0.0) -> int | None:
    """Return with how many pairs a t-test finds a true difference with 80 % power; None if more than MOST.

    Args:
        difference: The true difference.
        sd: Standard deviation of the differences between pairs.
        overlap: For runs of K folds 1 / (K - 1), otherwise 0; see intervals.py.
    """
    import numpy as np
    from scipy.special import stdtrit
    from scipy.stats import nct

    n = np.arange(2, MOST + 1)
    centre = np.minimum(difference / (sd * np.sqrt(1 / n + overlap)), _LARGE)
    critical = stdtrit(n - 1, (1 + LEVEL) / 2)
    enough = nct.sf(critical, n - 1, centre) + nct.cdf(-critical, n - 1, centre) >= POWER
    return int(n[enough.argmax()]) if enough.any() else None

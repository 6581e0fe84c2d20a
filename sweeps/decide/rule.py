"""What paired differences tell at one look. Imports nothing heavy.

The interval is a repeated confidence interval (C. Jennison and B. W. Turnbull, *Group Sequential Methods*, 2000,
chapter 9): with probability 95 %, those of all looks contain the true mean. So whatever is concluded from them, and
whenever, is wrong in at most 5 % of the decisions. The differences are assumed to be normal.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

HIGHER, LOWER, EQUAL, UNDECIDED = "higher", "lower", "equal", "undecided"  # values of A, compared with those of B
ROUNDING = 1e-12  # of a difference, as a share of the values


@dataclass(frozen=True)
class Look:
    """What was seen after n pairs.

    Attributes:
        n: Number of pairs.
        difference: Mean of A minus B.
        low: Lower end of its repeated interval; -inf if the pairs do not tell.
        high: Upper end.
        conclusion: HIGHER, LOWER, EQUAL or UNDECIDED.
    """

    n: int
    difference: float
    low: float
    high: float
    conclusion: str


def look(
    ours: "np.ndarray", theirs: "np.ndarray", margin: float, level: float, *, same: bool = False, overlap: float = 0.0
) -> Look:
    """Return what pairs of values tell.

    Args:
        ours: Values of A, shape (n,).
        theirs: Values of B with the same seeds, shape (n,).
        margin: Smaller differences do not matter.
        level: Nominal level of the look, see `levels.level_of`.
        same: Whether the runs of each pair agree in everything that they measured, so that A and B do the same.
        overlap: For runs of K folds 1 / (K - 1), otherwise 0; see comparison/intervals.py.
    """
    import numpy as np

    differences = ours - theirs
    if same:
        return Look(len(differences), 0.0, 0.0, 0.0, EQUAL)
    rounding = ROUNDING * float(np.abs([ours, theirs]).max())
    low, high = repeated_interval(differences, level, overlap, rounding)
    word = str(conclusions(low, high, margin))
    return Look(len(differences), float(differences.mean()), float(low), float(high), word)


def repeated_interval(
    differences: "np.ndarray", level: float, overlap: float = 0.0, rounding: float = 0.0
) -> tuple[Any, Any]:
    """Return the ends of the interval of the mean of the differences, shape (..., n) to (...).

    Equal differences have no spread that a t-test could use. Their interval is infinite until the sign test, of which
    each pair is a toss of a coin, has the level of the look: metrics of few examples are often equal by chance.

    Args:
        differences: The differences.
        level: Nominal level of the look.
        overlap: See `look`.
        rounding: Differences that differ by less are equal.
    """
    import numpy as np
    from scipy.special import stdtrit

    n = differences.shape[-1]
    mean, deviation = differences.mean(-1), differences.std(-1, ddof=1)
    half = float(stdtrit(n - 1, 1 - level / 2)) * deviation * np.sqrt(1 / n + overlap) + rounding
    constant = np.ptp(differences, axis=-1) <= rounding
    half = np.where(constant & (2.0 ** (1 - n) > level), np.inf, half)
    return mean - half, mean + half


def conclusions(low: Any, high: Any, margin: float) -> Any:
    """Return what intervals tell. One that is within the margin tells that A and B are equal, even without 0 in it."""
    import numpy as np

    cases = [(low > -margin) & (high < margin), low > 0, high < 0]
    return np.select(cases, [EQUAL, HIGHER, LOWER], UNDECIDED)

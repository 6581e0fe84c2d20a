"""How a claim is judged: by the rule that published/*.yaml has for it, which was written down before the runs.

A claim about measurements is reproduced, exceeded, contradicted, corrected, or undecided: then the runs are too few, or
differ too much, to tell. All intervals are two-sided 95 % intervals of Student's t distribution over n runs with
different seeds. The value of a method that does not depend on the seed is compared as it is.

- value p: reproduced if the interval of our mean lies within p ± margin (an equivalence test). If p is outside of the
  95 % prediction interval of one more run of ours, and further from our mean than the margin, the value is exceeded if
  ours is better, and else contradicted. The margin is 25 % of the published error (1 - accuracy) or of the published
  loss, unless the claim states another one.
- value p on other examples than the report's: for each of the two test sets, of N examples, a (1 - a) / N is added to
  the variance of an accuracy a; not for ours if it is drawn anew for each seed. Then the spread of our runs has that
  error already, and the prediction interval is wider than needed: exceeded and contradicted are rarer.
- greater A B (by at least c): reproduced if A - B is above c, contradicted if it is below, beyond chance. c is 0 if the
  claim states no size.
- not_greater A B, with a margin: reproduced if A - B is below the margin, contradicted if it is above, beyond chance.
- same A B within c: reproduced if A - B lies between -c and c, contradicted if it lies outside, beyond chance.
- beyond chance: the two-sided p-value of A - B against the nearest limit is at most 0.05, adjusted for all comparisons
  of this page (Y. Benjamini and Y. Hochberg, 1995). Seeds are compared in pairs if both sides have the same network and
  initial weights, and the same training examples in the same order; otherwise by Welch's test.
- at_least, at_most, between: reproduced if the interval of the mean lies within the limits, contradicted if it lies
  outside.
- corrected: the publication gives another reason or number. The right one is shown.
- count: reproduced if the network has the printed number of parameters, else corrected.
- theory: if the tests in that file pass, reproduced, or corrected where the publication is wrong; else contradicted.

Counts and theory are not measured, and are counted apart. Questions that a publication leaves open, and statements that
no publication makes ("beyond the reports"), are answered yes, no or undecided by the same rules.
"""

import math
from collections.abc import Callable

from pipelines.comparison.intervals import LEVEL, Interval
from pipelines.runtime.metric_names import mode_of
from sweeps.reproduction.estimates import Estimate

REPRODUCED, EXCEEDED, CONTRADICTED, UNDECIDED = "reproduced", "exceeded", "contradicted", "undecided"
CORRECTED, NOT_JUDGED = "corrected", "not judged"
YES, NO = "yes", "no"
WORDS = (REPRODUCED, EXCEEDED, CONTRADICTED, YES, NO, UNDECIDED, CORRECTED, NOT_JUDGED)  # in the order of summaries
MARGIN = 0.25  # of the published error or loss
MAX_P = 1 - LEVEL

# The values that a rule allows, both ends included, of the mean of a term or the difference of two.
THRESHOLDS: dict[str, Callable[..., Interval]] = {
    "at_least": lambda low: (low, math.inf),
    "at_most": lambda high: (-math.inf, high),
    "between": lambda low, high: (low, high),
}
COMPARISONS: dict[str, Callable[..., Interval]] = {
    "greater": lambda size=0.0: (math.nextafter(size, math.inf), math.inf),
    "not_greater": lambda margin: (-math.inf, margin),
    "same": lambda margin: (-margin, margin),
}


def default_margin(metric: str, published: float) -> float:
    """Return the margin of a value that states none: a quarter of the published loss or error."""
    return MARGIN * (published if mode_of(metric) == "min" else 1 - published)


def p_value(estimate: Estimate, allowed: Interval) -> float:
    """Return the two-sided p-value of the hypothesis that the true value is at the nearest end of what is allowed."""
    if estimate.error == 0:
        return 0.0  # it is on one side
    return max(estimate.p_value(limit) for limit in allowed if math.isfinite(limit))


def conclude(estimate: Estimate, allowed: Interval, p: float) -> str:
    """Return whether the true value is among the allowed ones: UNDECIDED if p, adjusted or not, is too large."""
    if p > MAX_P:
        return UNDECIDED
    return REPRODUCED if allowed[0] <= estimate.mean <= allowed[1] else CONTRADICTED


def judge_value(estimate: Estimate, published: float, margin: float, *, lower: bool, variance: float = 0.0) -> str:
    """Return whether our runs reproduce a published value.

    Args:
        estimate: Mean of our runs.
        published: The published value.
        margin: Smaller differences do not matter.
        lower: Whether lower values are better.
        variance: Variance of the difference between the two test sets; 0 if they are the same.
    """
    mean = estimate.with_variance(variance)
    low, high = estimate.one_more_run().with_variance(variance).interval
    allowed = published - margin, published + margin
    if conclude(mean, allowed, p_value(mean, allowed)) == REPRODUCED:
        return REPRODUCED
    if low <= published <= high or abs(mean.mean - published) <= margin:
        return UNDECIDED
    return EXCEEDED if (mean.mean < published) == lower else CONTRADICTED

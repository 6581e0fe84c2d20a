"""Format what was measured: means with 95 % intervals and the number of runs, differences, p-values."""

from pipelines.comparison.intervals import UNBOUNDED, Interval
from pipelines.runtime.metric_names import bounds_of
from sweeps.reproduction.estimates import Estimate, estimate_mean
from sweeps.reproduction.measurements import Deterministic, Values

SMALLEST_P = 0.0001


def format_values(values: Values, metric: str) -> str:
    """Format the values of all seeds: 0.9843 [0.9815, 0.9870] (n = 3)."""
    text = format_mean(values, metric)
    return text if isinstance(values, Deterministic) else f"{text} (n = {len(values)})"


def format_mean(values: Values, metric: str, spec: str | None = None) -> str:
    """Format the mean over the seeds with its 95 % interval.

    Args:
        values: The values by seed.
        metric: Name of the metric.
        spec: Format specification of the numbers; by default, see `format_number`.
    """
    estimate = estimate_mean(values)
    if estimate is None or isinstance(values, Deterministic):
        return format_number(next(iter(values.values())), spec)
    spec = spec or _spec(max(map(abs, estimate.interval)))
    return f"{estimate.mean:{spec}} {format_interval(estimate.interval, values, metric, spec)}"


def format_interval(interval: Interval, values: Values, metric: str, spec: str | None = None) -> str:
    """Format an interval of a metric, cut off at its bounds: [0.9815, 0.9870]."""
    low, high = bounds_of(metric, values.values()) if "(" not in metric else UNBOUNDED
    ends = max(interval[0], low), min(interval[1], high)
    spec = spec or _spec(max(map(abs, ends)))
    return f"[{ends[0]:{spec}}, {ends[1]:{spec}}]"


def format_difference(difference: Estimate) -> str:
    """Format a difference: +0.0029 [+0.0012, +0.0046], in pairs."""
    low, high = difference.interval
    method = ", in pairs" if difference.paired else ""
    return f"difference {difference.mean:+.2g} [{low:+.2g}, {high:+.2g}]{method}"


def format_p(p: float) -> str:
    """Format a p-value: p = 0.021, or p < 0.0001."""
    return f"p = {p:.2g}" if p >= SMALLEST_P else f"p < {SMALLEST_P}"


def format_number(value: float, spec: str | None = None) -> str:
    """Format a number: 0.9843, 2.0e-12, 53.0 or 1,191,170, or as the specification says."""
    return f"{value:{spec or _spec(abs(value))}}"


def _spec(size: float) -> str:
    if size == 0 or 0.001 <= size < 10:
        return ".4f"
    if size < 0.001:
        return ".1e"
    return ",.1f" if size < 1000 else ",.0f"

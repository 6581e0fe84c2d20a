"""Format numbers on the page of results, all metrics with the same number of digits."""

from pipelines.comparison.formatting import format_mean_sd
from pipelines.comparison.intervals import Summary


def format_number(value: float) -> str:
    """Format a number: 0.9843, 2.0e-12, 53.0 or 1,191,170."""
    return f"{value:{_spec(value)}}"


def format_summary(summary: Summary) -> str:
    """Format a mean and its spread: 0.9843 ± 0.0011. Both have the same digits unless that would hide the spread."""
    mean, sd = abs(summary.mean), summary.sd or 0.0
    same_digits = 0.001 <= mean < 10 and sd >= 0.0001
    sd_spec = ",.1f" if mean >= 10 else ".4f" if same_digits else _spec(sd)
    return format_mean_sd(summary.mean, summary.sd, _spec(mean), sd_spec=sd_spec)


def _spec(value: float) -> str:
    size = abs(value)
    if value == 0 or 0.001 <= size < 10:
        return ".4f"
    if size < 0.001:
        return ".1e"
    return ",.1f" if size < 1000 else ",.0f"

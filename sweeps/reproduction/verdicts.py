"""How a claim is judged: by the rule that published/*.yaml has for it, from what runs have measured.

- value: confirmed if one more run of ours can be expected to reach the published value: it lies within the 95 %
  prediction interval of our seeds, or on its worse side.
- greater A B (by at least c): confirmed if the 95 % interval of A - B, paired by seed, is above 0, and its mean at
  least c.
- not_greater A B: confirmed if that interval is not above 0.
- same A B within c: confirmed if that interval lies between -c and c.
- at_least, at_most, between: confirmed if the values of all seeds satisfy it.
- count: confirmed if the network has the printed number of parameters, else corrected.
- theory: confirmed if the tests in that file pass.

A question that a publication leaves open is answered yes, no (the opposite holds), or open (within noise).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipelines.comparison.formatting import format_mean_sd
from pipelines.comparison.intervals import Summary, paired_difference, prediction_interval, summarize
from pipelines.runtime.metric_names import mode_of
from sweeps.reproduction.claims import Claim
from sweeps.reproduction.measurements import Deterministic, Measurements, Values

CONFIRMED, NOT_CONFIRMED, CORRECTED, NOT_JUDGED = "confirmed", "not confirmed", "corrected", "not judged"
YES, NO, OPEN = "yes", "no", "open"
BOUNDS: dict[str, Callable[..., bool]] = {
    "at_least": lambda value, low: value >= low,
    "at_most": lambda value, high: value <= high,
    "between": lambda value, low, high: low <= value <= high,
}


@dataclass(frozen=True)
class Verdict:
    """Verdict on a claim.

    Attributes:
        claim: The claim.
        word: "confirmed", "not confirmed", "corrected" or "not judged"; for a question "yes", "no" or "open".
        result: What was measured, or why the claim was not judged.
        correction: What is right, if the publication is wrong.
    """

    claim: Claim
    word: str
    result: str
    correction: str = ""


def judge(claim: Claim, measurements: Measurements) -> Verdict:
    """Apply a claim's rule to the measurements."""
    if claim.rule == "not_judged":
        return Verdict(claim, NOT_JUDGED, str(claim.terms[0]))
    if not claim.is_judged:
        return Verdict(claim, NOT_JUDGED, "needs the published data: --tier full")
    if claim.rule == "count":
        return _judge_count(claim, measurements.parameters(claim.terms[0]))
    if claim.rule == "theory":
        return _judge_theory(claim, measurements.theory.get(claim.terms[0]))
    return _judge_metrics(claim, measurements)


def _judge_metrics(claim: Claim, measurements: Measurements) -> Verdict:
    terms = [term for term in claim.terms if isinstance(term, str)]
    numbers = [float(term) for term in claim.terms if not isinstance(term, str)]
    values = [measurements.values(term) for term in terms]
    if missing := [term for term, found in zip(terms, values, strict=True) if not found]:
        return Verdict(claim, NOT_JUDGED, f"no finished run has {' or '.join(missing)}")
    if claim.rule not in BOUNDS and max(map(len, values)) < 2:
        single = " and ".join(map(format_values, values))
        return Verdict(claim, NOT_JUDGED, f"{single}: the spread is unknown, since there is one run of each")
    if claim.rule in BOUNDS:
        holds: bool | None = all(BOUNDS[claim.rule](value, *numbers) for value in values[0].values())
        result = format_values(values[0])
    elif claim.rule == "value":
        holds, result = _judge_value(values[0], numbers[0], lower=mode_of(terms[0]) == "min")
    else:
        holds, result = _judge_difference(claim.rule, values, *numbers)
    word = _word(claim, holds)
    return Verdict(claim, word, result, claim.correction if word == CORRECTED else "")


def _judge_count(claim: Claim, count: int) -> Verdict:
    if count == claim.terms[1]:
        return Verdict(claim, CONFIRMED, f"{count:,}")
    return Verdict(claim, CORRECTED, f"{count:,}", f"{count:,}: {claim.correction}")


def _judge_theory(claim: Claim, passes: bool | None) -> Verdict:
    name = f"tests/theory/{claim.terms[0]}"
    if passes is None:  # there is no such file
        return Verdict(claim, NOT_JUDGED, f"{name} is missing; it is part of litlab's source repository")
    if not passes:
        return Verdict(claim, NOT_CONFIRMED, f"{name} fails")
    return Verdict(claim, CORRECTED if claim.corrects else CONFIRMED, f"{name} passes", claim.correction)


def _word(claim: Claim, holds: bool | None) -> str:
    """Return the verdict's word; `holds` is None if noise hides the answer."""
    if claim.is_question:
        return {True: YES, False: NO, None: OPEN}[holds]
    if claim.refutes:
        return CORRECTED if holds else NOT_CONFIRMED
    return CONFIRMED if holds else NOT_CONFIRMED


def _judge_value(values: Values, published: float, *, lower: bool) -> tuple[bool, str]:
    """Return whether our seeds reach a published value, of which `lower` may be better, and what was measured."""
    low, high = prediction_interval(summarize(list(values.values())))
    reached, is_better = (low <= published, published > high) if lower else (published <= high, published < low)
    note = "; ours is better" if is_better else ""
    interval = f"{format_number(low)} to {format_number(high)}"
    return reached, f"{format_values(values)}; 95 % prediction interval {interval}{note}"


def _judge_difference(rule: str, values: Sequence[Values], limit: float = 0.0) -> tuple[bool | None, str]:
    """Return whether the difference of two terms is as the rule says, None if noise hides it, and what was measured."""
    difference = paired_difference(values[0], values[1])
    low, high = difference.ci95 or (-math.inf, math.inf)
    interval = f"[{low:+.2g}, {high:+.2g}]" if difference.ci95 else "too few runs for an interval"
    text = f"{' and '.join(map(format_values, values))}; difference {difference.mean:+.2g} {interval}"
    if rule == "not_greater":
        return low <= 0, text
    if rule == "same":
        return -limit <= low and high <= limit, text
    if low <= 0 <= high:
        return None, f"{text}: within noise"
    if high < 0:
        return False, f"{text}: the opposite holds"
    return difference.mean >= limit, text


def format_values(values: Values) -> str:
    """Format the values of all seeds: 0.9843 ± 0.0011 (n = 3)."""
    summary = summarize(list(values.values()))
    if isinstance(values, Deterministic):
        return format_number(summary.mean)
    return f"{format_summary(summary)} (n = {summary.n})"


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

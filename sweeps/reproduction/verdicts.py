"""Judge the claims of a plan by what runs have measured. The rules are in rules.py."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipelines.runtime.metric_names import mode_of
from sweeps.reproduction.claims import UNKNOWN, Claim, Plan
from sweeps.reproduction.estimates import (
    Estimate,
    adjusted_p_values,
    binomial_variance,
    estimate_difference,
    estimate_mean,
)
from sweeps.reproduction.formatting import format_difference, format_interval, format_number, format_p, format_values
from sweeps.reproduction.measurements import Deterministic, Measurements, Values
from sweeps.reproduction.pairing import are_paired
from sweeps.reproduction.rules import (
    COMPARISONS,
    CONTRADICTED,
    CORRECTED,
    MAX_P,
    NO,
    NOT_JUDGED,
    REPRODUCED,
    THRESHOLDS,
    UNDECIDED,
    YES,
    conclude,
    default_margin,
    judge_value,
    p_value,
)

MARGINS = ("not_greater", "same")  # comparisons whose number is a margin


@dataclass(frozen=True)
class Verdict:
    """Verdict on a claim.

    Attributes:
        claim: The claim.
        word: One of the verdicts of rules.py; for a question "yes", "no" or "undecided".
        result: What was measured, or why the claim was not judged.
        correction: What is right, if the publication is wrong.
        p_value: Of a comparison, before the adjustment for the others; None if it is not judged by one.
    """

    claim: Claim
    word: str
    result: str
    correction: str = ""
    p_value: float | None = None

    @property
    def differs(self) -> str:
        """Why the result differs from the publication, as far as it is known; "" if it does not differ."""
        return "" if self.word in (REPRODUCED, YES, CORRECTED, NOT_JUDGED) else self.claim.differs


def judge(plan: Plan, measurements: Measurements) -> dict[str, list[Verdict]]:
    """Judge all claims of a plan; return the verdicts of each experiment, by its id."""
    verdicts = iter(_adjust([_judge(claim, plan, measurements) for claim in plan.claims]))
    return {experiment.id: [next(verdicts) for _ in experiment.claims] for experiment in plan.experiments}


def _adjust(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Adjust the p-values of comparisons for their number, and take back what may be chance."""
    adjusted = iter(adjusted_p_values([verdict.p_value for verdict in verdicts if verdict.p_value is not None]))
    return [verdict if verdict.p_value is None else _adjusted(verdict, next(adjusted)) for verdict in verdicts]


def _adjusted(verdict: Verdict, p: float) -> Verdict:
    result = f"{verdict.result}, adjusted {format_p(p)}"
    if p <= MAX_P:
        return replace(verdict, result=result)
    return replace(verdict, result=result, word=UNDECIDED, correction="")


def _judge(claim: Claim, plan: Plan, measurements: Measurements) -> Verdict:
    """Apply a claim's rule, to a comparison as if it were the only one."""
    if claim.rule == "not_judged":
        return Verdict(claim, NOT_JUDGED, str(claim.terms[0]))
    if not claim.is_judged:
        return Verdict(claim, NOT_JUDGED, "needs the published data: --tier full")
    if claim.rule == "count":
        return _judge_count(claim, measurements.parameters(claim.terms[0]))
    if claim.rule == "theory":
        return _judge_theory(claim, measurements.theory.get(claim.terms[0]))
    terms = [f"{label} {metric}" for label, metric in claim.metrics]
    values = [measurements.values(term) for term in terms]
    if missing := [term for term, found in zip(terms, values, strict=True) if not found]:
        return Verdict(claim, NOT_JUDGED, f"no finished run has {' or '.join(missing)}")
    if unfinished := _unfinished(claim, values, plan):
        return Verdict(claim, NOT_JUDGED, f"{_format_terms(claim, values)}; {unfinished}")
    if any(estimate_mean(of_term) is None for of_term in values):
        return Verdict(claim, NOT_JUDGED, f"{_format_terms(claim, values)}: one run does not tell the spread")
    if claim.rule in COMPARISONS:
        return _judge_comparison(claim, values, paired=are_paired(claim, plan.jobs))
    if claim.rule == "value":
        return _judge_value(claim, values[0], plan, measurements)
    return _judge_threshold(claim, values[0])


def _unfinished(claim: Claim, values: Sequence[Values], plan: Plan) -> str:
    """Return of which planned runs only some have finished: a verdict on these would depend on when one looks."""
    counts = {}
    for (label, _), of_term in zip(claim.metrics, values, strict=True):
        planned = plan.jobs[label].seeds
        if len(of_term) < planned and not isinstance(of_term, Deterministic):
            counts[label] = f"{len(of_term)} of {planned} runs of {label}"
    return " and ".join(counts.values())


def _judge_count(claim: Claim, count: int) -> Verdict:
    if count == claim.terms[1]:
        return _verdict(claim, REPRODUCED, f"{count:,}")
    return Verdict(claim, CORRECTED, f"{count:,}", f"{count:,}: {claim.correction}")


def _judge_theory(claim: Claim, passes: bool | None) -> Verdict:
    name = f"tests/theory/{claim.terms[0]}"
    if passes is None:  # there is no such file
        return Verdict(claim, NOT_JUDGED, f"{name} is missing; it is part of litlab's source repository")
    if not passes:
        return _verdict(claim, CONTRADICTED, f"{name} fails")
    return _verdict(claim, CORRECTED if claim.corrects else REPRODUCED, f"{name} passes")


def _judge_value(claim: Claim, values: Values, plan: Plan, measurements: Measurements) -> Verdict:
    ((label, metric),), (published,) = claim.metrics, claim.numbers
    margin, estimate = claim.margin, _mean(values)
    margin = default_margin(metric, published) if margin is None else margin
    is_loss, variance = mode_of(metric) == "min", 0.0
    if claim.other_test_set is not None and not is_loss:
        ours, drawn_anew = measurements.test_size(label) or UNKNOWN, plan.jobs[label].follows_seed
        variance = binomial_variance(published, claim.other_test_set or ours)
        variance += 0.0 if drawn_anew else binomial_variance(estimate.mean, ours)
    word = judge_value(estimate, published, margin, lower=is_loss, variance=variance)
    wider, prediction = (
        format_interval(one.with_variance(variance).interval, values, metric)
        for one in (estimate, estimate.one_more_run())
    )
    text = format_values(values, metric) + (f"; with the error of other examples {wider}" if variance else "")
    return _verdict(claim, word, f"{text}; margin {format_number(margin)}; one more run {prediction}")


def _judge_threshold(claim: Claim, values: Values) -> Verdict:
    allowed, estimate = THRESHOLDS[claim.rule](*claim.numbers), _mean(values)
    limits = " and ".join(f"{limit:g}" for limit in claim.numbers)
    text = f"{_format_terms(claim, [values])}; {claim.rule.replace('_', ' ')} {limits}"
    return _verdict(claim, conclude(estimate, allowed, p_value(estimate, allowed)), text)


def _judge_comparison(claim: Claim, values: Sequence[Values], *, paired: bool) -> Verdict:
    difference = estimate_difference(values[0], values[1], paired=paired)
    assert difference is not None
    allowed = COMPARISONS[claim.rule](*claim.numbers)
    text = f"{_format_terms(claim, values)}; {format_difference(difference)}"
    if claim.numbers:
        text += f"; {'margin' if claim.rule in MARGINS else 'by at least'} {claim.numbers[0]:g}"
    verdict = _verdict(claim, conclude(difference, allowed, 0.0), text)
    return verdict if difference.error == 0 else replace(verdict, p_value=p_value(difference, allowed))


def _mean(values: Values) -> Estimate:
    estimate = estimate_mean(values)
    assert estimate is not None
    return estimate


def _verdict(claim: Claim, conclusion: str, result: str) -> Verdict:
    """Return the verdict that a conclusion about the rule means for the claim."""
    if claim.is_asked:
        word = {REPRODUCED: YES, CONTRADICTED: NO}.get(conclusion, conclusion)
    elif claim.refutes:
        word = CORRECTED if conclusion == REPRODUCED else UNDECIDED
    else:
        word = conclusion
    return Verdict(claim, word, result, claim.correction if word == CORRECTED else "")


def _format_terms(claim: Claim, values: Sequence[Values]) -> str:
    return " and ".join(map(format_values, values, (metric for _, metric in claim.metrics)))

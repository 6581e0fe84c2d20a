"""How a claim is judged by what runs have measured, by the rule that published/*.yaml has for it.

- figure: confirmed if one more run of ours may be expected to reach the published figure: it lies within the 95 %
  prediction interval of our seeds, or on the bad side of it.
- greater A B (by at least c): confirmed if the 95 % interval of A - B, paired by seed, is above 0, and its mean at
  least c.
- not_greater A B: confirmed if that interval is not above 0.
- same A B within c: confirmed if that interval lies between -c and c.
- at_least, at_most, between: confirmed if the values of all seeds are so.
- count: confirmed if the network has as many parameters as printed, else corrected.
- theory: confirmed if the tests of that file pass.

A question that a publication leaves open is answered yes, no (the other way round), or open (within the noise).
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipelines.comparison.formatting import format_mean_sd
from pipelines.comparison.intervals import (
    Difference,
    Interval,
    Summary,
    paired_difference,
    prediction_interval,
    summarize,
)
from pipelines.comparison.rows import lower_is_better
from pipelines.tracking.store import StoredRun
from sweeps.reproduction.claims import Claim

CONFIRMED, NOT, CORRECTED, NOT_JUDGED = "confirmed", "not confirmed", "corrected", "not judged"
YES, NO, OPEN = "yes", "no", "open"
BY_SPREAD = ("figure", "greater", "not_greater", "same")
Values = Mapping[str, float]  # by seed


class Certain(dict[str, float]):
    """The value of a method without chance: alike for every seed, and a single one."""


@dataclass(frozen=True)
class Verdict:
    """What came of a claim.

    Attributes:
        claim: What was judged.
        word: One of those above.
        ours: What was measured, and what it lacks.
        true: What is right, where the publication is wrong.
    """

    claim: Claim
    word: str
    ours: str
    true: str = ""


@dataclass(frozen=True)
class Evidence:
    """What claims are judged by.

    Attributes:
        values: The values of a term, "LABEL METRIC", by seed.
        parameters: How many a job's network has, as published.
        theory: Whether the tests of a file pass; None if it is not there.
    """

    values: Callable[[str], Values]
    parameters: Callable[[str], int]
    theory: Callable[[str], bool | None]


def judge(claim: Claim, evidence: Evidence) -> Verdict:
    """Apply a claim's rule."""
    if claim.rule == "not_judged":
        return Verdict(claim, NOT_JUDGED, str(claim.terms[0]))
    if not claim.judged:
        return Verdict(claim, NOT_JUDGED, "of other data; --tier full judges it")
    if claim.rule == "count":
        return _count(claim, evidence.parameters(claim.terms[0]))
    if claim.rule == "theory":
        return _theory(claim, evidence.theory(claim.terms[0]))
    terms = [term for term in claim.terms if isinstance(term, str)]
    values = [evidence.values(term) for term in terms]
    if missing := [term for term, found in zip(terms, values, strict=True) if not found]:
        return Verdict(claim, NOT_JUDGED, f"no finished run has {' or '.join(missing)}")
    numbers = [float(term) for term in claim.terms if not isinstance(term, str)]
    if claim.rule in BY_SPREAD and max(map(len, values)) < 2:
        single = " and ".join(map(pm, values))
        return Verdict(claim, NOT_JUDGED, f"{single}, of a single run each: no spread to judge by")
    holds, ours = _RULES[claim.rule](terms[0], values, numbers)
    word = _word(claim, holds)
    return Verdict(claim, word, ours, claim.because if word == CORRECTED else "")


def _word(claim: Claim, holds: bool | None) -> str:
    """The verdict; None says that the noise hides it."""
    if claim.question:
        return {True: YES, False: NO, None: OPEN}[holds]
    if claim.refutes:
        return CORRECTED if holds else NOT
    return CONFIRMED if holds else NOT


def _figure(term: str, values: Sequence[Values], numbers: Sequence[float]) -> tuple[bool | None, str]:
    ours, (published,) = summarize(list(values[0].values())), numbers
    low, high = prediction_interval(ours)
    lower = lower_is_better(term)
    better = published > high if lower else published < low
    reached = low <= published if lower else published <= high
    said = "; ours is better" if better else ""
    return reached, f"{pm(values[0])}; one more run is expected in {plain(low)} to {plain(high)}{said}"


def _interval(values: Sequence[Values]) -> tuple[Difference, Interval, str]:
    difference = paired_difference(values[0], values[1])
    low, high = difference.ci95 or (-math.inf, math.inf)
    said = f"[{low:+.2g}, {high:+.2g}]" if difference.ci95 else "too few runs for an interval"
    return difference, (low, high), f"{pm(values[0])} and {pm(values[1])}; difference {difference.mean:+.2g} {said}"


def _greater(term: str, values: Sequence[Values], numbers: Sequence[float]) -> tuple[bool | None, str]:
    difference, (low, high), said = _interval(values)
    if low <= 0 <= high:
        return None, f"{said}: within the noise"
    if high < 0:
        return False, f"{said}: the other way round"
    return difference.mean >= (numbers[0] if numbers else 0.0), said


def _not_greater(term: str, values: Sequence[Values], numbers: Sequence[float]) -> tuple[bool | None, str]:
    _, (low, _), said = _interval(values)
    return low <= 0, said


def _same(term: str, values: Sequence[Values], numbers: Sequence[float]) -> tuple[bool | None, str]:
    _, (low, high), said = _interval(values)
    return -numbers[0] <= low and high <= numbers[0], said


def _all(hold: Callable[[float, Sequence[float]], bool]) -> "Rule":
    def rule(term: str, values: Sequence[Values], numbers: Sequence[float]) -> tuple[bool | None, str]:
        return all(hold(value, numbers) for value in values[0].values()), pm(values[0])

    return rule


Rule = Callable[[str, Sequence[Values], Sequence[float]], tuple[bool | None, str]]
_RULES: dict[str, Rule] = {
    "figure": _figure,
    "greater": _greater,
    "not_greater": _not_greater,
    "same": _same,
    "at_least": _all(lambda value, numbers: value >= numbers[0]),
    "at_most": _all(lambda value, numbers: value <= numbers[0]),
    "between": _all(lambda value, numbers: numbers[0] <= value <= numbers[1]),
}


def _count(claim: Claim, counted: int) -> Verdict:
    if counted == claim.terms[1]:
        return Verdict(claim, CONFIRMED, f"{counted:,}")
    return Verdict(claim, CORRECTED, f"{counted:,}", f"{counted:,}: {claim.because}")


def _theory(claim: Claim, passes: bool | None) -> Verdict:
    name = f"tests/theory/{claim.terms[0]}"
    if passes is None:
        return Verdict(claim, NOT_JUDGED, f"{name} is not here; it comes with litlab's source")
    if not passes:
        return Verdict(claim, NOT, f"{name} fails")
    return Verdict(claim, CORRECTED if claim.corrects else CONFIRMED, f"{name} passes", claim.because)


def measure(run: StoredRun, metric: str, history: Callable[[str, str], Sequence[tuple[int, float]]]) -> float | None:
    """A metric of a run, or what is made of some: None if it has none.

    Args:
        run: Finished.
        metric: A name: the last value, for `val/acc` of the last epoch. `val/acc@3`: in epoch 3 (from 0).
            `log(fit_seconds)`: its natural logarithm. `gap(acc)`: training less test accuracy at the selected epoch;
            `apart(acc)`: how far they are apart. `rise(val/loss)`: the last value less the lowest.
            `roughness(val/acc)`: the mean change from epoch to epoch, up or down, in the second half of the training.
        history: Epochs and values of a metric, by run id and name.
    """
    made, of = found.groups() if (found := re.fullmatch(r"(\w+)\((.+)\)", metric)) else ("", metric)
    if made in ("gap", "apart"):
        train, test = run.metrics.get(f"selected/train/{of}"), run.metrics.get(f"test/{of}")
        gap = None if train is None or test is None else train - test
        return abs(gap) if gap is not None and made == "apart" else gap
    if made == "log":
        return math.log(run.metrics[of]) if run.metrics.get(of, 0) > 0 else None
    name, _, epoch = of.partition("@")
    if not made and not epoch:
        return run.metrics.get(name)
    values = dict(history(run.run_id, name))
    return values.get(int(epoch)) if epoch else _CURVES[made]([values[at] for at in sorted(values)])


def _rise(values: Sequence[float]) -> float | None:
    return values[-1] - min(values) if values else None


def _roughness(values: Sequence[float]) -> float | None:
    steps = [abs(after - before) for before, after in pairwise(values[max(0, len(values) // 2 - 1) :])]
    return math.fsum(steps) / len(steps) if steps else None


_CURVES = {"rise": _rise, "roughness": _roughness}


def pm(values: Values) -> str:
    """0.9843 ± 0.0011 (n = 3)."""
    summary = summarize(list(values.values()))
    return plain(summary.mean) if isinstance(values, Certain) else f"{spreading(summary)} (n = {summary.n})"


def spreading(summary: Summary) -> str:
    """0.9843 ± 0.0011, both to the same place unless that would hide the second."""
    mean, sd = abs(summary.mean), summary.sd or 0.0
    same_place = 0.001 <= mean < 10 and sd >= 0.0001
    sd_spec = ",.1f" if mean >= 10 else ".4f" if same_place else _spec(sd)
    return format_mean_sd(summary.mean, summary.sd, _spec(mean), sd_spec=sd_spec)


def plain(value: float) -> str:
    """A figure as tables show it: 0.9843, 2.0e-12, 53.0, 1,191,170."""
    return f"{value:{_spec(value)}}"


def _spec(value: float) -> str:
    size = abs(value)
    if value == 0 or 0.001 <= size < 10:
        return ".4f"
    if size < 0.001:
        return ".1e"
    return ",.1f" if size < 1000 else ",.0f"

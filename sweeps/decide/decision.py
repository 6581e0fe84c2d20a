"""What a decision found, as text, and as a run of the MLflow experiment "decisions"."""

import math
from dataclasses import dataclass

from pipelines.comparison.formatting import markdown_table
from pipelines.tracking.endings import recorded
from pipelines.tracking.ledger import Ledger
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.summary_runs import save_note, summary_tags
from pipelines.tracking.tags import DECISION_TAG
from sweeps.decide.pairs import Measure
from sweeps.decide.rule import EQUAL, HIGHER, UNDECIDED, Look
from sweeps.workers.batch import JobResult

DECISIONS = "decisions"  # MLflow experiment
FIRST, SECOND = "first", "second"  # verdicts, besides EQUAL and UNDECIDED


@dataclass(frozen=True)
class Decision:
    """Result of `decide`.

    Attributes:
        names: What the user calls A and B.
        margin: Smaller differences do not matter.
        max_seeds: Seeds after which it would have ended.
        level: Nominal level of each look.
        measure: What was compared; None before the first look.
        looks: What was seen at each look.
        runs: The finished runs of A and of B, in the order of their seeds.
        parents: Ids of their summary runs; None where there is none.
        failed: Results of the trainings that did not finish.
        stop_signal: The signal that stopped the trainings, or None.
        tracking_uri: URI of the tracking store.
        run_id: Id of the run that records it; "" if it was stopped or a training failed.
        ledger: Of a decision by a test metric, who looked at the test set; None for others, and if that is unknown.
    """

    names: tuple[str, str]
    margin: float
    max_seeds: int
    level: float
    measure: Measure | None
    looks: list[Look]
    runs: tuple[list[StoredRun], list[StoredRun]]
    parents: tuple[str | None, str | None]
    failed: list[JobResult]
    stop_signal: int | None
    tracking_uri: str
    run_id: str = ""
    ledger: Ledger | None = None

    @property
    def verdict(self) -> str:
        """FIRST or SECOND, which is better; EQUAL or UNDECIDED."""
        word = self.looks[-1].conclusion if self.looks else UNDECIDED
        if self.measure is None or word in (EQUAL, UNDECIDED):
            return word
        return FIRST if (word == HIGHER) != self.measure.lower_is_better else SECOND

    @property
    def is_complete(self) -> bool:
        """Whether no training was stopped or failed."""
        return self.stop_signal is None and not self.failed


def headline(decision: Decision) -> str:
    """Return the verdict in a few words."""
    one, other = decision.names
    return {
        FIRST: f"{one} is better than {other}",
        SECOND: f"{other} is better than {one}",
        EQUAL: f"{one} and {other} are equal within {decision.margin:g}",
    }.get(decision.verdict, "undecided")


def evidence(decision: Decision) -> str:
    """Return what the verdict is based on, in one line."""
    assert decision.measure is not None
    count = len(decision.looks)
    looks = "1 look" if count == 1 else f"{count} looks"
    return f"{decision.measure.metric}: {describe(decision.looks[-1])}, {looks}{_on_test(decision)}"


def _on_test(decision: Decision) -> str:
    if decision.measure is None or not decision.measure.is_test:
        return ""
    said = "; each look is a look at the test set"
    if decision.ledger is None:
        return said
    return f"{said}. With these two, {decision.ledger.text} were evaluated on it"


def describe(look: Look) -> str:
    """Describe a look: "difference +0.0312 (+0.0121 to +0.0503) after 4 pairs of seeds"."""
    if math.isinf(look.low):
        interval = "no interval: all differences are equal"
    else:
        interval = f"{look.low:+.4g} to {look.high:+.4g}"
    return f"difference {look.difference:+.4g} ({interval}) after {look.n} pairs of seeds"


def log_decision(decision: Decision, store: Store, command: str) -> str:
    """Log a decision as a run, with the interval of each look at the step of its number of pairs; return its id."""
    assert decision.measure is not None
    tags = {**summary_tags("decision", command, "litlab decide"), DECISION_TAG: headline(decision)}
    run = Run(store, DECISIONS, " or ".join(decision.names)[:200], tags)
    settings = {"metric": decision.measure.metric, "margin": decision.margin, "max_seeds": decision.max_seeds}
    with recorded(run):
        run.log_params({**settings, "level": decision.level, "first": decision.names[0], "second": decision.names[1]})
        for look in decision.looks:
            ends = {} if math.isinf(look.low) else {"difference_low": look.low, "difference_high": look.high}
            run.log_metrics({"difference": look.difference, **ends, "n": look.n}, look.n)
        save_note(run, _note(decision))
    return run.run_id


def _note(decision: Decision) -> str:
    one, other = decision.names
    looks = [["pairs", f"{one} minus {other}", "repeated interval", ""]]
    looks += [[str(look.n), f"{look.difference:+.4g}", _ends(look), look.conclusion] for look in decision.looks]
    runs = [
        f"- {name} ({parent}): {' '.join(run.run_id for run in side)}"
        for name, parent, side in zip(decision.names, decision.parents, decision.runs, strict=True)
    ]
    rule = f"The intervals of all looks contain the true mean with 95 % (each look at level {decision.level:g})."
    parts = [f"**{headline(decision)}**", evidence(decision) + ".", markdown_table(looks), rule, "\n".join(runs)]
    return "\n\n".join(parts) + "\n"


def _ends(look: Look) -> str:
    return "" if math.isinf(look.low) else f"{look.low:+.4g} to {look.high:+.4g}"

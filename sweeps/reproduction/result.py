"""What a reproduction returns."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps.reproduction.claims import Plan
from sweeps.reproduction.finished_runs import Runs
from sweeps.reproduction.verdicts import Verdict


@dataclass(frozen=True)
class Reproduction:
    """Result of a reproduction.

    Attributes:
        plan: Experiments, claims and jobs.
        verdicts: Verdicts on the claims of each experiment, by its id; empty if the reproduction was stopped.
        runs: Finished runs of each job, by label and seed.
        failures: Why a job of this call failed, by label.
        data: Describes the data of each section, by its title, one sentence for each test set.
        facts: When, where and with which versions the runs were made, one sentence each.
        command: The command line; "" if it was called from Python.
        pages: The files that were written.
        stop_signal: The signal that stopped it before anything was judged, or None.
    """

    plan: Plan
    verdicts: Mapping[str, list[Verdict]]
    runs: Runs
    failures: Mapping[str, str]
    data: Mapping[str, list[str]]
    facts: Sequence[str]
    command: str = ""
    pages: Sequence[Path] = ()
    stop_signal: int | None = None

    def verdict_counts(self) -> Counter[str]:
        """Return the number of claims with each verdict."""
        return Counter(verdict.word for judged in self.verdicts.values() for verdict in judged)

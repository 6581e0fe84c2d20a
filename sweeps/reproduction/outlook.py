"""How many runs of the published experiments are missing, and how long they take."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pipelines.tracking.store import Store
from sweeps.reproduction.claims import Plan
from sweeps.reproduction.measured import MeasuredRuns
from sweeps.reproduction.reproduce import measure_existing, plan_runs


@dataclass(frozen=True)
class Outlook:
    """The runs of a section.

    Attributes:
        section: Its title.
        planned: Number of runs that the page needs.
        missing: How many of these have not been measured.
        hours: Time that the missing ones take one after another, as far as it is known from earlier runs.
        unknown: How many of the missing ones are of jobs of which no run is known, and not among the hours.
        outdated: Rows of its CSV file that are of earlier configurations, and do not count.
    """

    section: str
    planned: int
    missing: int
    hours: float
    unknown: int
    outdated: int


def look_ahead(
    ids: Sequence[str] = (),
    *,
    tier: str = "quick",
    seeds: int | None = None,
    measurements: str | Path | None = None,
    tracking_uri: str | None = None,
) -> list[Outlook]:
    """Return what `reproduce` would run with these arguments, for each section. Trains nothing.

    Raises:
        UserError: See `reproduce`.
    """
    plan, files = plan_runs(ids, tier, seeds, measurements)
    measured = measure_existing(plan, Store(tracking_uri, opened=False), files, adds=False)
    return [_section(measured, title, section) for section, title in _titles(plan).items()]


def _titles(plan: Plan) -> dict[str, str]:
    """Return the titles of the sections, by the names of their files; of other files that the plan needs, the name."""
    titles = {plan.jobs[label].section: section.title for section in plan.sections for label in section.labels}
    return {job.section: titles.get(job.section, job.section) for job in plan.jobs.values()}


def _section(measured: MeasuredRuns, title: str, section: str) -> Outlook:
    seconds = measured.known_seconds
    missing = [run.job.label for run in measured.missing if run.job.section == section]
    known = [fmean(seconds[label]) for label in missing if label in seconds]
    planned = sum(run.job.section == section for run in measured.planned)
    outdated = sum(measured.section_of(row) == section for row in measured.other)
    return Outlook(title, planned, len(missing), sum(known) / 3600, len(missing) - len(known), outdated)

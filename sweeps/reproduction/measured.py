"""Which runs of a plan are measured, from the CSV files or the tracking store, and which are missing."""

from dataclasses import dataclass

from pipelines.tracking.store import Store, StoredRun
from sweeps.reproduction.claims import Plan
from sweeps.reproduction.finished import find_explanation, find_finished_runs, find_new_run, row_of
from sweeps.reproduction.identity import Identity
from sweeps.reproduction.measurement_files import MeasurementFiles
from sweeps.reproduction.published_job import PublishedJob
from sweeps.reproduction.row import Row, Runs


@dataclass(frozen=True)
class PlannedRun:
    """A run that the page of results needs."""

    job: PublishedJob
    seed: str


class MeasuredRuns:
    """The measured runs of a plan.

    Args:
        plan: What is to be measured.
        identities: See `identify_jobs`.
        store: Where runs are; it is opened only if the files lack a run.
        files: CSV files that are read first; None for none.
        adds: Whether runs that are found in the store are added to the files.

    Attributes:
        runs: What has been measured, by label and seed.
        other: Rows of the files that are of the plan's jobs, but of other configurations.
    """

    def __init__(
        self,
        plan: Plan,
        identities: dict[str, Identity],
        store: Store,
        files: MeasurementFiles | None = None,
        *,
        adds: bool = True,
    ) -> None:
        self._plan, self.identities, self._store, self._files, self._adds = plan, identities, store, files, adds
        self.runs: Runs = {label: {} for label in plan.jobs}
        self.other: list[Row] = []
        self._stored: dict[str, dict[str, StoredRun]] = {label: {} for label in plan.jobs}

    @property
    def planned(self) -> list[PlannedRun]:
        """All runs of the plan: those of all jobs with the first seed before the second."""
        jobs = self._plan.jobs.values()
        most = max((job.seeds for job in jobs), default=0)
        return [PlannedRun(job, str(seed)) for seed in range(most) for job in jobs if seed < job.seeds]

    @property
    def missing(self) -> list[PlannedRun]:
        """The planned runs that have not been measured."""
        return [run for run in self.planned if run.seed not in self.runs[run.job.label]]

    @property
    def known_seconds(self) -> dict[str, list[float]]:
        """Durations of runs of each job, by label, also of earlier configurations; only of jobs that have runs."""
        rows = [*self.other, *(row for of_job in self.runs.values() for row in of_job.values())]
        return {label: [row.seconds for row in rows if row.label == label] for label in {row.label for row in rows}}

    def section_of(self, row: Row) -> str:
        """Return the section of a row's job."""
        return self._plan.jobs[row.label].section

    def stored(self, label: str, seed: str) -> StoredRun | None:
        """Return a run of the tracking store that has been found there."""
        return self._stored[label].get(seed)

    def read_files(self) -> None:
        """Take from the CSV files the rows that answer all claims.

        Raises:
            UserError: A file is not valid.
        """
        if self._files is None:
            return
        jobs = self._plan.jobs
        for row in self._files.read(dict.fromkeys(job.section for job in jobs.values())):
            if row.label not in jobs:
                continue
            if row.config_hash != self.identities[row.label](row.seed).hash:
                self.other.append(row)
            elif int(row.seed) < jobs[row.label].seeds and row.answers(jobs[row.label].metrics):
                self.runs[row.label][row.seed] = row

    def read_store(self) -> None:
        """Take what is missing from finished runs of the tracking store. A run that is explained is found too."""
        wanted = {run.job.label for run in self.missing}
        wanted |= {self._plan.jobs[label].explains for label in wanted} - {""}
        jobs = [job for job in self._plan.jobs.values() if job.label in wanted]
        if not jobs:
            return
        for label, found in find_finished_runs(self._store, jobs, self.identities).items():
            self._stored[label] |= found
            self._measure(self._plan.jobs[label], found)

    def add_new(self, label: str, seed: str, experiment: str) -> None:
        """Take the run of a job that has just finished in an MLflow experiment. Other runs there are not read."""
        job, identity = self._plan.jobs[label], self.identities[label](seed)
        if job.explains:
            explained = self.stored(job.explains, seed)
            run = explained and find_explanation(explained, identity)
        else:
            run = find_new_run(self._store, experiment, identity, seed)
        if run is not None:
            self._stored[label][seed] = run
            self._measure(job, {seed: run})

    def _measure(self, job: PublishedJob, found: dict[str, StoredRun]) -> None:
        new = {
            seed: row_of(run, job, self.identities[job.label](seed).hash, seed)
            for seed, run in found.items()
            if seed not in self.runs[job.label]
        }
        self.runs[job.label] |= new
        if self._files is not None and self._adds and new:
            self._files.add(job.section, list(new.values()))

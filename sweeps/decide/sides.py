"""One of the two configurations of a decision: what it is, and its runs and trainings."""

from collections.abc import Sequence
from pathlib import Path

from pipelines.config.experiments import experiment_files, find_experiment
from pipelines.config.request import read_request
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.tracking.existing import existing_store
from pipelines.tracking.labels import Labels
from pipelines.tracking.run import Run
from pipelines.tracking.run_names import find_run
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import DATA_HASH_TAG
from sweeps.seeds.plan import SeedsPlan
from sweeps.seeds.summary_run import add_seeds, create_summary_run, reopen, seeds_of, summary_runs
from sweeps.seeds.training import finished_runs, missing_jobs, summarize_runs
from sweeps.workers.job import Job


def arguments_of(name: str, tracking_uri: str | None) -> list[str]:
    """Return the arguments of `litlab fit` that stand for an experiment, a YAML file, or the configuration of a run.

    Raises:
        UserError: It is none of these.
    """
    path = Path(name)
    if name in experiment_files() or path.suffix in (".yaml", ".yml") or path.parent != Path():
        find_experiment(name)
        return [name]
    try:
        return ["-c", str(find_run(existing_store(tracking_uri), name).file("config.yaml"))]
    except UserError as error:
        message = f"{name!r}: expected an experiment (litlab list shows them), a YAML file or a run"
        raise UserError(f"{message}; {error}") from error


def read_sides(
    names: Sequence[str], overrides: Sequence[str], tracking_uri: str | None, options: Sequence[str] = ()
) -> list[list[str]]:
    """Return the arguments of `litlab fit` for A and for B, checked as far as that needs no torch.

    Args:
        names: What the user calls them, see `arguments_of`.
        overrides: Keys of both.
        tracking_uri: Where runs are looked up.
        options: Names of the command's options, for suggestions.

    Raises:
        UserError: A name or an argument is invalid.
    """
    sides = [[*arguments_of(name, tracking_uri), *overrides] for name in names]
    for arguments in sides:
        read_request("decide", arguments, options=options)
    return sides


class Side:
    """A configuration with its runs, which are those of `litlab fit --seeds`: below one summary run.

    Args:
        name: What the user calls it.
        plan: Its configuration, with the largest number of seeds.
        store: Tracking store of the runs.
        command: Recorded as the command of a new summary run.
    """

    def __init__(self, name: str, plan: SeedsPlan, store: Store, command: str) -> None:
        self.name, self._plan, self._store, self._command = name, plan, store, command
        self._found = next(iter(summary_runs(store, plan)), None)
        self._number = len(seeds_of(self._found)) if self._found else 0
        self._parent: Run | None = None

    @property
    def parent_id(self) -> str | None:
        """Id of the summary run; None before there is one."""
        if self._parent is not None:
            return self._parent.run_id
        return None if self._found is None else self._found.run_id

    def runs(self, number: int) -> list[StoredRun]:
        """Return the finished runs of the first seeds, in their order."""
        return [] if self.parent_id is None else finished_runs(self._store, self.parent_id, self._seeds(number))

    def jobs(self, number: int) -> list[Job]:
        """Return the jobs of those of the first seeds that have no finished run."""
        done = self.runs(number)
        if len(done) == number:
            return []
        plan = self._plan.first(number)
        return missing_jobs(self._store, self._open(plan), plan, Labels(), done)

    def summarize(self) -> None:
        """Log the results on the summary run, if it has got new runs."""
        if self._parent is not None:
            plan = self._plan.first(self._number)
            summarize_runs(self._parent, plan, self.runs(self._number))

    def finish(self, status: str, reason: str) -> None:
        """End the summary run, if it was opened."""
        if self._parent is not None:
            self._parent.finish(status, reason)

    def _seeds(self, number: int) -> range:
        return self._plan.first(number).seeds

    def _open(self, plan: SeedsPlan) -> Run:
        """Open the summary run, and add the seeds of a plan to it."""
        if self._parent is not None:
            add_seeds(self._parent, self._number, plan)
        elif self._found is not None:
            self._parent = reopen(self._found, plan)
        else:
            self._parent = create_summary_run(self._store, plan, self._command)
        self._number = max(self._number, len(plan.seeds))
        return self._parent


def check_comparable(names: tuple[str, str], plans: tuple[SeedsPlan, SeedsPlan]) -> None:
    """Refuse two configurations between which there is nothing to decide.

    Raises:
        UserError: They are the same, or are tested on different data sets.
    """
    if plans[0].facts["hash"] == plans[1].facts["hash"]:
        raise UserError(f"{names[0]} and {names[1]} have the same configuration: there is nothing to decide")
    tested, validated = (
        [plan.digests.get(f"{DATA_HASH_TAG}.{split}", "") for plan in plans] for split in ("test", "val")
    )
    if all(tested) and tested[0] != tested[1]:
        sets = " and ".join(f"{name} ({digest[:8]})" for name, digest in zip(names, tested, strict=True))
        raise UserError(f"{sets} have different test sets: values on different data sets are not compared")
    if all(validated) and validated[0] != validated[1]:
        logger.warning("%s and %s have different validation sets, which may explain differences", *names)

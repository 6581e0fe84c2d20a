"""What `fit_seeds` is to train: the checked experiment and its seeds."""

from dataclasses import dataclass, replace
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.tracking.tags import DATA_HASH_TAG, EXPERIMENT_TAG, FOLDS_PARAM
from sweeps.cluster.options import AUTO, StackSize, check_stacked
from sweeps.workers.job import Job
from sweeps.workers.pool import Pool

LAST_SEED = 2**32 - 1  # the highest that torch and numpy both take


@dataclass(frozen=True)
class SeedsPlan:
    """A checked experiment and its seeds.

    Attributes:
        arguments: Arguments of `litlab fit`, without a seed.
        seeds: Consecutive seeds.
        facts: Facts about the experiment, from `sweeps.workers.worker`.
        folds: Number of folds of the data; None without.
        stacked: Number of seeds that a worker trains as one.
    """

    arguments: list[str]
    seeds: range
    facts: dict[str, Any]
    folds: int | None = None
    stacked: int = 1

    @property
    def name(self) -> str:
        """What is trained: "seeds 0 to 4", or "5 folds, seeds 0 to 4"."""
        seeds = f"seed{'s' if len(self.seeds) > 1 else ''} {self.seed_range}"
        return seeds if self.folds is None else f"{self.folds} folds, {seeds}"

    def first(self, number: int) -> "SeedsPlan":
        """Return the plan of another number of seeds, with the same first one."""
        return replace(self, seeds=range(self.seeds[0], self.seeds[0] + number))

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment."""
        return str(self.facts["tags"][EXPERIMENT_TAG])

    @property
    def seed_range(self) -> str:
        return format_seeds(self.seeds)

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each data set, by the names of a run's tags."""
        dataset = self.facts["dataset"] or {"sha256": {}}
        return {f"{DATA_HASH_TAG}.{split}": digest for split, digest in dataset["sha256"].items()}


def format_seeds(seeds: range) -> str:
    """Format consecutive seeds: "0 to 4", or "0" for a single one."""
    return f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])


def parse_seeds(text: str) -> range:
    """Return consecutive seeds that `format_seeds` has formatted."""
    first, _, last = text.partition(" to ")
    return range(int(first), int(last or first) + 1)


def make_plan(
    pool: Pool,
    arguments: list[str],
    seeds: int,
    first_seed: int | None,
    folds: int | None = None,
    stacked: StackSize = 1,
) -> SeedsPlan:
    """Check an experiment in a separate process, and return what is to be trained; see `fit_seeds`.

    Raises:
        UserError: The experiment, a key or a value is invalid.
    """
    if folds is not None:
        arguments = [*arguments, f"--{FOLDS_PARAM}={folds}"]
        if folds < 2:
            raise UserError(f"--folds {folds}: expected at least 2")
        if seeds % folds:
            raise UserError(f"--seeds {seeds}: expected a multiple of --folds {folds}, so that each fold counts alike")
        if stacked != 1:
            raise UserError("--stacked: folds have different data; leave it out")
    check_stacked(stacked)
    seed_arguments = [] if first_seed is None else ["--seed_everything", str(first_seed)]
    try:
        facts = pool.check(Job([*arguments, *seed_arguments], test=folds is None, stacked=stacked != 1), [])
    except UserError as error:
        if f"unknown key {FOLDS_PARAM}" in str(error):
            raise UserError("--folds: the data module has no arguments folds and fold; see docs/DATA.md") from error
        raise
    pool.use_nodes(facts["nodes"])
    if facts["values"]["trainer.fast_dev_run"]:
        raise UserError("trainer.fast_dev_run records no run: leave out --seeds")
    first = facts["values"]["seed_everything"]
    if isinstance(first, bool) or not isinstance(first, int):
        raise UserError(f"seed_everything {first}: with --seeds it is the first seed and must be an integer")
    if first + seeds - 1 > LAST_SEED:
        raise UserError(f"seed_everything {first}: the last of {seeds} seeds would exceed {LAST_SEED}")
    size = facts["stack_size"] if stacked == AUTO else stacked
    return SeedsPlan(arguments, range(first, first + seeds), facts, folds, size)

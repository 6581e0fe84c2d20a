"""What `fit_seeds` is to train: the checked experiment and its seeds."""

from dataclasses import dataclass
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.tracking.tags import DATA_HASH_TAG, EXPERIMENT_TAG
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
    """

    arguments: list[str]
    seeds: range
    facts: dict[str, Any]

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


def make_plan(pool: Pool, arguments: list[str], seeds: int, first_seed: int | None) -> SeedsPlan:
    """Check an experiment in a separate process, and return what is to be trained; see `fit_seeds`.

    Raises:
        UserError: The experiment, a key or a value is invalid.
    """
    seed_arguments = [] if first_seed is None else ["--seed_everything", str(first_seed)]
    facts = pool.check(Job([*arguments, *seed_arguments], test=True), [])
    if facts["values"]["trainer.fast_dev_run"]:
        raise UserError("trainer.fast_dev_run records no run: leave out --seeds")
    first = facts["values"]["seed_everything"]
    if isinstance(first, bool) or not isinstance(first, int):
        raise UserError(f"seed_everything {first}: with --seeds it is the first seed and must be an integer")
    if first + seeds - 1 > LAST_SEED:
        raise UserError(f"seed_everything {first}: the last of {seeds} seeds would exceed {LAST_SEED}")
    return SeedsPlan(arguments, range(first, first + seeds), facts)

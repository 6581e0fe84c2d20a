"""The runs of an experiment in published/*.yaml: commands, and how many seeds each is run with.

The number of seeds was planned before the runs: `seeds` of a run, or else of the file's full tier. If seeds are added
after the results were seen, `exploratory: true` says so. `{seed}` in a command is the seed of each run, for data that
are drawn anew for each seed.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

OTHER_VERBS = ("baseline", "explain")  # than fit, which a command does not name
SEED = "{seed}"
QUICK_SEEDS = 3
RUN_KEYS = {"command", "explains", "exploratory", "seeds", "quick", "full"}


@dataclass(frozen=True)
class PublishedJob:
    """A training, a baseline or an explanation that is run once for each seed.

    Attributes:
        label: Its name in claims.
        verb: "fit", "baseline" or "explain".
        arguments: Arguments of the verb, without the seed and without the run that is explained.
        full_arguments: The same in the full tier; published parameter counts refer to these.
        explains: Label of the job whose run is explained, with the same seed; "" if nothing is.
        seeds: Planned number of runs, with seeds from 0; 1 if the result does not depend on the seed.
        section: Name of the file that it is published in, without suffix.
        metrics: Metrics that claims about it name.
        exploratory: Whether seeds were added after its results had been seen.
    """

    label: str
    verb: str
    arguments: list[str]
    full_arguments: list[str]
    explains: str = ""
    seeds: int = QUICK_SEEDS
    section: str = ""
    metrics: frozenset[str] = frozenset()
    exploratory: bool = False

    @property
    def follows_seed(self) -> bool:
        """Whether its data are drawn anew for each seed."""
        return any(SEED in argument for argument in self.arguments)

    @property
    def is_stochastic(self) -> bool:
        """Whether the result depends on the seed."""
        return self.verb != "baseline" or self.follows_seed

    def with_seeds(self, seeds: int) -> "PublishedJob":
        """Return the job with this number of runs, or one if its result does not depend on the seed."""
        return replace(self, seeds=seeds if self.is_stochastic else 1)

    def arguments_with(self, seed: int | str) -> list[str]:
        """Return the arguments of the run with this seed."""
        return [argument.replace(SEED, str(seed)) for argument in self.arguments]


def load_job(
    label: str, run: Mapping[str, Any], tier: str, tiers: Mapping[str, Mapping[str, Any]], section: str
) -> PublishedJob:
    """Return a job in a tier from an experiment's `runs`; for the other arguments see `PublishedJob`."""
    assert set(run) <= RUN_KEYS, f"{section}: {label}"
    first = run["command"].split()[0]
    arguments, full_arguments = (_arguments(run, name, tiers[name]) for name in (tier, "full"))
    job = PublishedJob(
        label=label,
        verb=first if first in OTHER_VERBS else "fit",
        arguments=arguments,
        full_arguments=[argument.replace(SEED, "0") for argument in full_arguments],
        explains=run.get("explains", ""),
        section=section,
        exploratory=run.get("exploratory", False),
    )
    planned = run.get("seeds", tiers["full"].get("seeds", QUICK_SEEDS))
    return job.with_seeds(planned if tier == "full" else QUICK_SEEDS)


def _arguments(run: Mapping[str, Any], tier: str, settings: Mapping[str, Any]) -> list[str]:
    """Return the arguments of a job in a tier; of a key that is given twice, the last value counts."""
    name, *own = shlex.split(run["command"])
    own += shlex.split(run.get(tier, ""))
    if name in OTHER_VERBS:
        return own
    tokens = [*shlex.split(settings.get("arguments", "")), *own]
    values = dict(zip(tokens[::2], tokens[1::2], strict=True))
    return [name, *(token for pair in values.items() for token in pair)]

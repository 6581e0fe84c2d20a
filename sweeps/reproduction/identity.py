"""What identifies the runs of published jobs, one identity for each job and seed."""

import copy
import hashlib
import importlib
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pipelines.config.identity import config_hash, flatten_config
from pipelines.config.matching import ConfigMatcher, saved_configs
from pipelines.runtime.class_paths import with_old_class_paths
from pipelines.runtime.silence import silence_lightning
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import CONFIG_HASH_TAG
from sweeps.reproduction.published_job import SEED, PublishedJob

GIVEN = ("method", "C", "components", "model", "data", "trainer.max_epochs")  # keys that a run of any version has


@dataclass(frozen=True)
class JobIdentity:
    """What identifies the run of a job with a seed.

    Attributes:
        hash: Hash of the configuration, equal for runs that differ only in the seed and the place of the data; of an
            explanation, also of its arguments.
        reads_files: Whether the data are read from files, so that the job takes `--data.data_dir`.
        explains: Label of the job whose run is explained; "" if nothing is.
        arguments: Those of an explanation, by which it is found; "" for other runs.
        matcher: Finds runs of other versions, which recorded another hash; None for an explanation.
        given: Params that all these runs have, as in `StoredRun.configuration`.
    """

    hash: str
    reads_files: bool
    explains: str = ""
    arguments: str = ""
    matcher: ConfigMatcher | None = None
    given: Mapping[str, str] = field(default_factory=dict)

    def matches(self, run: StoredRun) -> bool:
        """Return whether a run has this configuration, perhaps without a key that was added later.

        The matcher may read files of the run, so params are compared first.
        """
        if run.tags.get(CONFIG_HASH_TAG) == self.hash:
            return True
        has_params = self.given.items() <= run.configuration.items()
        return has_params and self.matcher is not None and self.matcher.matches(run)


Identity = Callable[[str], JobIdentity]  # of a job, by the seed


def identify_jobs(jobs: Collection[PublishedJob]) -> dict[str, Identity]:
    """Parse each job's command, and return what gives its identity for a seed, by label.

    Raises:
        UserError: A command is invalid.
    """
    importlib.import_module("lightning.pytorch")  # which would make its loggers verbose again
    silence_lightning()
    identities = {job.label: _identify(job) for job in jobs if not job.explains}
    explanations = [job for job in jobs if job.explains]
    return identities | {job.label: _identify_explanation(job, identities[job.explains]) for job in explanations}


def _identify(job: PublishedJob) -> Identity:
    """Return what gives the identity of a training or a baseline."""
    from pipelines.config.cli import parse_config
    from pipelines.config.defaults import config_defaults

    arguments, read = job.arguments_with(0), saved_configs
    if job.verb == "baseline":
        from pipelines.commands import baseline
        from pipelines.evaluation.baseline import baseline_config, recorded_baseline
        from pipelines.evaluation.baseline_methods import settings_of

        options = baseline.parse(arguments)
        cli = parse_config(job.verb, [options.experiment, *options.overrides])
        (setting,) = settings_of(options.method, C=options.C, components=options.components)
        first, read = baseline_config(options.method, setting, cli), recorded_baseline
    else:
        cli = parse_config(job.verb, arguments)
        first = cli.resolved()
    keys = _seed_keys(job)
    defaults = cache(lambda: config_defaults(cli))

    @cache
    def identity(seed: str) -> JobIdentity:
        config = _with_seed(first, keys, int(seed)) if keys else first
        digest, flat = config_hash(config), flatten_config(with_old_class_paths(config))
        return JobIdentity(
            hash=digest,
            reads_files="data_dir" in config["data"].get("init_args", {}),
            matcher=ConfigMatcher(digest, config, defaults, read),
            given={key: str(value) for key, value in flat.items() if key in GIVEN and value is not None},
        )

    return identity if keys else lambda seed: identity("0")


def _seed_keys(job: PublishedJob) -> list[str]:
    """Return the keys that a command sets to the seed, such as "data.seed"."""
    keys = [
        key.removeprefix("--") for key, value in zip(job.arguments, job.arguments[1:], strict=False) if value == SEED
    ]
    assert len(keys) == sum(SEED in argument for argument in job.arguments), (
        f"{job.label}: {SEED} must be a whole value"
    )
    return keys


def _with_seed(config: Mapping[str, Any], keys: Collection[str], seed: int) -> dict[str, Any]:
    """Return a resolved configuration in which these keys of the data have the seed as their value."""
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    for key in keys:
        section, name = key.split(".")
        arguments = changed[section]["init_args"]
        assert name in arguments, key
        arguments[name] = seed
    return changed


def _identify_explanation(job: PublishedJob, explained: Identity) -> Identity:
    arguments = shlex.join(job.arguments)

    def identity(seed: str) -> JobIdentity:
        of = explained(seed)
        digest = hashlib.sha256(f"{of.hash} {arguments}".encode()).hexdigest()
        return JobIdentity(digest, of.reads_files, job.explains, arguments)

    return identity

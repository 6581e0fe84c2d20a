"""The summary run of several seeds: one process at a time, which continues one that is unfinished or has fewer."""

import contextlib
import hashlib
import json
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipelines.config.matching import ConfigMatcher
from pipelines.runtime.errors import UserError
from pipelines.runtime.files import file_lock
from pipelines.runtime.log import logger
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.summary_runs import summary_tags
from pipelines.tracking.tags import (
    FOLD_PARAM,
    HOST_TAG,
    NAME_TAG,
    PARENT_TAG,
    REMOVED_TAG,
    SEED_TAG,
    SEEDS_PARAM,
    SEEDS_TAG,
    TIES_TAG,
)
from sweeps.seeds.plan import SeedsPlan, parse_seeds


@contextlib.contextmanager
def seeds_lock(store: Store, plan: SeedsPlan) -> Iterator[None]:
    """Make sure that no other process of this machine trains these seeds, so that RUNNING runs are orphans.

    Raises:
        UserError: Another process trains them, or another number of them.
    """
    identity = json.dumps([store.uri, plan.experiment, plan.facts["hash"], plan.digests, plan.seeds[0]])
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    path = (store.folder or Path(tempfile.gettempdir())) / f"seeds-{key}.lock"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(file_lock(path, timeout=0, remove=True))
        except TimeoutError as error:
            message = f"seeds {plan.seed_range} of this configuration are being trained by another process"
            raise UserError(message) from error
        yield


def open_summary_run(store: Store, plan: SeedsPlan, command: str) -> Run:
    """Reopen the latest unfinished summary run of these seeds, or the latest one if it has fewer, or create one."""
    found = summary_runs(store, plan)
    unfinished = [run for run in found if seeds_of(run) == plan.seeds and run.status != "FINISHED"]
    fewer = [run for run in found[:1] if len(seeds_of(run)) < len(plan.seeds)]
    for run in (*unfinished, *fewer):
        return reopen(run, plan)
    return create_summary_run(store, plan, command)


def summary_runs(store: Store, plan: SeedsPlan) -> list[StoredRun]:
    """Find summary runs of the same configuration, data and first seed, the latest first.

    One that may be active on another machine is left out, with a warning.
    """
    of_seeds = f"tags.`{PARENT_TAG}` = 'seeds'"
    runs = store.search([store.experiment_id(plan.experiment)], of_seeds, ["attributes.start_time DESC"])
    facts = plan.facts
    matcher = ConfigMatcher(facts["hash"], facts["config"], lambda: facts["defaults"])
    runs = [run for run in runs if REMOVED_TAG not in run.tags and seeds_of(run)[:1] == plan.seeds[:1]]
    runs = [run for run in runs if _has_same_data(run, plan) and matcher.matches(run)]
    return [run for run in runs if not _is_active_elsewhere(run)]


def seeds_of(run: StoredRun) -> range:
    """Return the seeds of a summary run; none if it recorded none."""
    text = run.tags.get(SEEDS_TAG, run.params.get(SEEDS_PARAM))
    return range(0) if text is None else parse_seeds(text)


def reopen(run: StoredRun, plan: SeedsPlan) -> Run:
    """Reopen a summary run, which gets the seeds of a plan if these are more."""
    parent = Run.reopen(run)
    parent.set_tags({HOST_TAG: platform.node()})
    add_seeds(parent, len(seeds_of(run)), plan)
    logger.info("continuing run %s", run.run_id)
    return parent


def add_seeds(parent: Run, number: int, plan: SeedsPlan) -> None:
    """Record the seeds of a plan on a summary run that has another number of them, if these are more."""
    if number < len(plan.seeds):
        name = parent.name.replace(plan.first(number).name, plan.name)
        parent.set_tags({SEEDS_TAG: plan.seed_range, NAME_TAG: name})


def create_summary_run(store: Store, plan: SeedsPlan, command: str) -> Run:
    """Create a summary run."""
    tags = {key: tag for key, tag in plan.facts["tags"].items() if key != SEED_TAG}
    folds = "" if plan.folds is None else f" --folds {plan.folds}"
    tags |= summary_tags("seeds", command, f"litlab fit {plan.experiment} --seeds {len(plan.seeds)}{folds}")
    tags[TIES_TAG] = "val/loss"
    changes = " ".join(word for word in plan.facts["run_name"].split(" ") if word != "seed=0" and "folds=" not in word)
    parent = Run(store, plan.experiment, f"{changes}, {plan.name}" if changes else plan.name, tags)
    params = {key: value for key, value in plan.facts["params"].items() if key not in ("seed_everything", FOLD_PARAM)}
    parent.log_params({**params, SEEDS_PARAM: plan.seed_range})
    if plan.facts["dataset"]:
        parent.log_dataset(plan.facts["dataset"])
    return parent


def _is_active_elsewhere(run: StoredRun) -> bool:
    is_active = run.status == "RUNNING" and (host := run.tags.get(HOST_TAG)) != platform.node()
    if is_active:
        logger.warning("run %s of the same seeds may be active on %s; a new summary run is created", run.run_id, host)
    return is_active


def _has_same_data(run: StoredRun, plan: SeedsPlan) -> bool:
    """Return whether both have digests or neither, and no split differs; one that only one has makes no difference."""
    recorded, current = run.data_digests, plan.digests
    return bool(recorded) == bool(current) and all(current.get(key, recorded[key]) == recorded[key] for key in recorded)

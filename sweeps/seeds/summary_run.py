"""The summary run of several seeds: one process at a time, continued if an earlier one is not finished."""

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
from pipelines.tracking.tags import FOLD_PARAM, HOST_TAG, PARENT_TAG, REMOVED_TAG, SEED_TAG, SEEDS_PARAM, TIES_TAG
from sweeps.seeds.plan import SeedsPlan


@contextlib.contextmanager
def seeds_lock(store: Store, plan: SeedsPlan) -> Iterator[None]:
    """Make sure that no other process of this machine trains the same seeds, so that RUNNING runs are orphans.

    Raises:
        UserError: Another process trains them.
    """
    identity = json.dumps([store.uri, plan.experiment, plan.facts["hash"], plan.digests, plan.seed_range])
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
    """Reopen the latest unfinished summary run of the same configuration, data and seeds, or create one."""
    for run in _unfinished(store, plan):
        if run.status == "RUNNING" and (host := run.tags.get(HOST_TAG)) != platform.node():
            logger.warning(
                "run %s of the same seeds may be active on %s; a new summary run is created", run.run_id, host
            )
            continue
        parent = Run.reopen(run)
        parent.set_tags({HOST_TAG: platform.node()})
        logger.info("continuing run %s", run.run_id)
        return parent
    return _create(store, plan, command)


def _unfinished(store: Store, plan: SeedsPlan) -> list[StoredRun]:
    """Find unfinished summary runs of the same configuration, data and seeds, the latest first."""
    same_seeds = f"tags.`{PARENT_TAG}` = 'seeds' and params.{SEEDS_PARAM} = '{plan.seed_range}'"
    unfinished = f"{same_seeds} and attributes.status != 'FINISHED'"
    runs = store.search([store.experiment_id(plan.experiment)], unfinished, ["attributes.start_time DESC"])
    facts = plan.facts
    matcher = ConfigMatcher(facts["hash"], facts["config"], lambda: facts["defaults"])
    runs = [run for run in runs if REMOVED_TAG not in run.tags]
    return [run for run in runs if _has_same_data(run, plan) and matcher.matches(run)]


def _has_same_data(run: StoredRun, plan: SeedsPlan) -> bool:
    """Return whether both have digests or neither, and no split differs; one that only one has makes no difference."""
    recorded, current = run.data_digests, plan.digests
    return bool(recorded) == bool(current) and all(current.get(key, recorded[key]) == recorded[key] for key in recorded)


def _create(store: Store, plan: SeedsPlan, command: str) -> Run:
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

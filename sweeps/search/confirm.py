"""After the search: the best configuration and the experiment's own, on fresh seeds; only these runs are tested."""

from typing import Any

from pipelines.tracking.tags import CONFIGURATION_TAG, STAGE_TAG
from sweeps.search.child_runs import RunsBySeed, by_seed
from sweeps.search.context import SearchContext
from sweeps.search.summary import Confirmed
from sweeps.search.trial_state import params_key
from sweeps.workers.batch import run_jobs

NO_TRIAL = "-"


def confirm(context: SearchContext, default_point: dict[str, Any], *, train: bool) -> Confirmed:
    """Train and test the best configuration and the experiment's own, once per seed that the search has not used.

    Args:
        context: A study whose search has ended.
        default_point: The experiment's own values of the searched keys; empty if they lie outside the space.
        train: Whether to train the missing runs.

    Returns:
        The finished runs of "best" and "default", including those of earlier calls.
    """
    study, space = context.study, context.space
    best = study.best()
    if best is None or not space.confirm:
        return {}
    settings = {"best": space.settings(best.params), "default": space.settings(default_point) if default_point else {}}
    if params_key(settings["best"]) == params_key(settings["default"]):
        del settings["default"]
    seeds = range(space.seeds, space.seeds + space.confirm)
    trials = {"best": str(best.number), "default": NO_TRIAL}
    jobs = {
        (label, seed): context.confirm_job(values, seed, label, trials[label])
        for seed in seeds
        for label, values in settings.items()
    }
    if train:
        existing = _runs(context, "FINISHED", "RUNNING")  # RUNNING: another controller's, this one has none
        missing = [job for job in jobs.values() if (job.tags[CONFIGURATION_TAG], job.seed) not in existing]
        run_jobs(context.pool, missing, context.store, context.display, title=f"confirm {study.name}")
    finished = _runs(context, "FINISHED")
    keys = {label: params_key(values) for label, values in settings.items()}
    return {label: [finished[key, seed] for seed in seeds if (key, seed) in finished] for label, key in keys.items()}


def _runs(context: SearchContext, *statuses: str) -> RunsBySeed:
    """Return the confirmation's runs with one of these statuses."""
    children = context.store.children(context.parent.run_id)
    return by_seed(run for run in children if run.tags.get(STAGE_TAG) == "confirm" and run.status in statuses)

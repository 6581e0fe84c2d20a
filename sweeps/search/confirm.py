"""After the search: the best configuration, and the experiment's own, on fresh seeds; only these are tested."""

from typing import Any

from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import CONFIGURATION_TAG, SEED_TAG, STAGE_TAG, TRIAL_TAG
from sweeps.search.controller import Controller
from sweeps.search.study import key_of
from sweeps.search.study_run import Confirmed
from sweeps.workers.batch import run_jobs
from sweeps.workers.job import Job, as_arguments

NO_TRIAL = "-"


def confirm(controller: Controller, own: dict[str, Any], *, train: bool) -> Confirmed:
    """Train and test what the search found beside what it began from, once per seed that the search has not used.

    Args:
        controller: Whose study has ended.
        own: The experiment's own values of the keys that were searched; empty if they are no point of the space.
        train: Whether to make the runs that are missing.

    Returns:
        The runs of "best" and "default"; those that earlier calls made are not made again.
    """
    study, space = controller.study, controller.space
    best = study.best()
    if best is None or not space.confirm:
        return {}
    settings = {"best": space.settings(best.params), "default": space.settings(own) if own else {}}
    if key_of(settings["best"]) == key_of(settings["default"]):
        del settings["default"]
    seeds = range(space.seeds, space.seeds + space.confirm)
    jobs = {
        (which, seed): _job(controller, values, which, seed, best.number)
        for seed in seeds
        for which, values in settings.items()
    }
    done = _runs(controller, finished=False)
    waiting = [job for job in jobs.values() if (job.tags["configuration"], job.seed) not in done]
    if train:
        title = f"confirm {study.name}"
        run_jobs(controller.pool, waiting, controller.store, controller.board, title=title)
    done = _runs(controller, finished=True)
    runs: Confirmed = {which: [] for which in settings}
    for (which, seed), job in jobs.items():
        if found := done.get((job.tags["configuration"], seed)):
            runs[which].append(found)
    return runs


def _job(controller: Controller, values: dict[str, Any], which: str, seed: int, trial: int) -> Job:
    tags = {
        STAGE_TAG: "confirm",
        TRIAL_TAG: str(trial) if which == "best" else NO_TRIAL,
        CONFIGURATION_TAG: key_of(values),
    }
    return Job(
        arguments=[*controller.arguments, *as_arguments(values)],
        seed=seed,
        experiment=controller.experiment,
        tracking_uri=controller.store.uri,
        run_name=f"confirm {which} seed {seed}",
        tags={**controller.tags, **tags},
        metric=controller.space.metric,
        test=True,
        devices=controller.devices,
    )


def _runs(controller: Controller, *, finished: bool) -> dict[tuple[str, int], StoredRun]:
    """By configuration and seed, those that are finished; or also those that another controller is about to finish."""
    children = [
        run for run in controller.store.children(controller.parent.run_id) if run.tags.get(STAGE_TAG) == "confirm"
    ]
    states = ("FINISHED",) if finished else ("FINISHED", "RUNNING")  # this controller has none that is RUNNING
    return {(run.tags[CONFIGURATION_TAG], int(run.tags[SEED_TAG])): run for run in children if run.status in states}

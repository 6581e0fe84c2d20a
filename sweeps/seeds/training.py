"""The trainings below a summary run of seeds: which of them are finished, and the jobs of the others."""

from collections.abc import Sequence

from pipelines.runtime.log import logger
from pipelines.tracking.labels import Labels
from pipelines.tracking.query import find_runs
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.summary_runs import keep_code
from pipelines.tracking.tags import HOST_TAG, MODE_TAG, MONITOR_TAG, NOTE_TAG, PARENT_RUN_TAG, TIES_TAG
from sweeps.seeds.plan import SeedsPlan
from sweeps.seeds.summary import format_test_metrics, log_summary
from sweeps.workers.job import Job


def finished_runs(store: Store, parent_id: str, seeds: range) -> list[StoredRun]:
    """End the runs whose process died, and return one finished run per seed, in their order.

    Runs of other programs below the same parent are left as they are, and do not count.
    """
    for run in store.children(parent_id):
        if HOST_TAG in run.tags:
            store.end(run.run_id, "KILLED", "its process died")
    finished = [run for run in find_runs(store, [parent_id]).runs if HOST_TAG in run.tags]
    by_seed = {run.seed: run for run in finished}
    return [by_seed[str(seed)] for seed in seeds if str(seed) in by_seed]


def missing_jobs(store: Store, parent: Run, plan: SeedsPlan, labels: Labels, done: Sequence[StoredRun]) -> list[Job]:
    """Return the jobs of a plan's seeds that no run is done of, and say if those were trained with other code."""
    code = keep_code(parent)
    breaks_ties = TIES_TAG in store.find(parent.run_id).tags
    if any(run.tags.get(key, value) != value for run in done for key, value in code.items()):
        logger.info("run %s has seeds that were trained with other code; they are not trained again", parent.run_id)
    trained = {int(run.seed) for run in done}
    return [
        Job(
            arguments=plan.arguments,
            seed=seed,
            experiment=plan.experiment,
            tracking_uri=store.uri,
            tags={**labels.tags, **code, PARENT_RUN_TAG: parent.run_id},
            test=plan.folds is None,
            folds=plan.folds,
            breaks_ties=breaks_ties,
            devices=plan.facts["devices"],
            stacked=plan.stacked > 1,
        )
        for seed in plan.seeds
        if seed not in trained
    ]


def summarize_runs(parent: Run, plan: SeedsPlan, runs: Sequence[StoredRun]) -> None:
    """Log what the finished runs measured on their summary run."""
    parent.set_tags({key: runs[0].tags[key] for key in (MONITOR_TAG, MODE_TAG) if runs and key in runs[0].tags})
    log_summary(parent, _note_heading(plan, runs), runs)


def _note_heading(plan: SeedsPlan, runs: Sequence[StoredRun]) -> str:
    """Return the first lines of the note: the result, then the experiment's description."""
    what = "seeds" if plan.folds is None else f"seeds on {plan.folds} folds"
    done = f"{len(runs)} of {len(plan.seeds)} {what} ({plan.seed_range}) are done"
    result = f": **{metrics}**" if (metrics := format_test_metrics(runs)) else ""
    description = str(plan.facts["tags"][NOTE_TAG])
    return "\n\n".join(filter(None, [f"{done}{result}.", description]))

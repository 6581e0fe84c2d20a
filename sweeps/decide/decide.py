"""Train two configurations with the same seeds until an interval tells which one is better."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from pathlib import Path

from pipelines.config.experiments import config_arguments
from pipelines.runtime.errors import UserError
from pipelines.tracking.store import Store
from sweeps.cluster.options import make_pool
from sweeps.cluster.place import Place
from sweeps.decide.decision import Decision, describe, log_decision
from sweeps.decide.levels import FIRST, LARGEST, MAX_SEEDS, level_of, looks_until
from sweeps.decide.pairs import Measure, find_measure, ledger_of, look_at
from sweeps.decide.rule import UNDECIDED, Look
from sweeps.decide.sides import Side, check_comparable
from sweeps.seeds.plan import make_plan
from sweeps.seeds.summary_run import seeds_lock
from sweeps.workers.batch import JobResult, explained_loss, graceful_shutdown, run_jobs
from sweeps.workers.display import LiveDisplay
from sweeps.workers.pool import Pool


@dataclass(frozen=True)
class Question:
    """What is to be decided; see `decide`."""

    names: tuple[str, str]
    metric: str | None
    margin: float
    max_seeds: int


@dataclass
class Progress:
    """What has been seen so far; see `Decision`."""

    measure: Measure | None = None
    looks: list[Look] = field(default_factory=list)
    failed: list[JobResult] = field(default_factory=list)


def decide(
    names: tuple[str, str],
    sides: Sequence[Sequence[str]],
    *,
    margin: float,
    metric: str | None = None,
    max_seeds: int = MAX_SEEDS,
    first_seed: int = 0,
    workers: int | None = None,
    cluster: str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    tracking_uri: str | None = None,
    command: str = "",
) -> Decision:
    """Train two configurations with the same seeds until an interval tells which one is better.

    It looks at the pairs after 3, 4, 5, 6, 8, 10 ... seeds. The interval stays valid under these looks: see rule.py.
    The runs are those of `fit_seeds`. Seeds that have finished runs are not trained again, so that the same call
    continues after a stop. Must be called in the main thread.

    Args:
        names: What the user calls A and B.
        sides: Arguments of `litlab fit` for A and B, see `read_sides`.
        margin: Differences that are smaller do not matter: A and B are equal if the interval is within it.
        metric: What is compared, such as "val/acc" at the selected epoch; by default, the metric that selects it.
        max_seeds: Number of seeds at which it ends undecided, 3 to 100. To be fixed beforehand.
        first_seed: The first seed.
        workers: Number of trainings in parallel; see `Place`, as for the three below.
        cluster: A Ray cluster on which to train.
        cpus: CPUs of each training there.
        gpus: GPUs of each training there.
        tracking_uri: Database or server of the runs; default: MLFLOW_TRACKING_URI, else the project's mlflow.db.
        command: Recorded as the command.

    Raises:
        UserError: A value is invalid, A and B cannot be compared, a run lacks the metric, another process trains the
            same seeds, or the tracking store is lost.
    """
    check_numbers(margin, max_seeds)
    question = Question(names, metric, margin, max_seeds)
    place = Place(cluster, workers, cpus, gpus)
    with tempfile.TemporaryDirectory(prefix="litlab-decide-") as folder, make_pool(place, Path(folder)) as pool:
        pool.warm_up()
        configs = [config_arguments(None, arguments, tracking_uri) for arguments in sides]
        plan, others = (make_plan(pool, arguments, max_seeds, first_seed) for arguments in configs)
        check_comparable(names, (plan, others))
        store = Store(plan.facts["tracking_uri"])
        pool.check_store(store)
        with seeds_lock(store, plan), seeds_lock(store, others), graceful_shutdown(pool) as signals:
            pair = Side(names[0], plan, store, command), Side(names[1], others, store, command)
            progress = _train_and_look(pool, store, pair, question)
        seen = progress.looks[-1].n if progress.looks else 0
        decision = Decision(
            names=names,
            margin=margin,
            max_seeds=max_seeds,
            level=level_of(max_seeds),
            measure=progress.measure,
            looks=progress.looks,
            runs=(pair[0].runs(seen), pair[1].runs(seen)),
            parents=(pair[0].parent_id, pair[1].parent_id),
            failed=progress.failed,
            stop_signal=signals[0] if signals else None,
            tracking_uri=store.uri,
        )
    if not decision.is_complete:
        return decision
    assert decision.measure is not None
    decision = replace(decision, ledger=ledger_of(decision.measure, decision.runs[0]))
    return replace(decision, run_id=log_decision(decision, store, command))


def check_numbers(margin: float, max_seeds: int) -> None:
    """Check the numbers of a decision.

    Raises:
        UserError: One is out of its range.
    """
    if not 0 < margin < float("inf"):
        raise UserError(f"--margin {margin:g}: expected a number above 0, the largest difference that does not matter")
    if not FIRST <= max_seeds <= LARGEST:
        raise UserError(f"--max_seeds {max_seeds}: expected {FIRST} to {LARGEST}")


@explained_loss()
def _train_and_look(pool: Pool, store: Store, pair: tuple[Side, Side], question: Question) -> Progress:
    """Train and look until something is decided, a training fails, or the user stops it; end the summary runs.

    Raises:
        UserError: A run lacks the metric, or the tracking store is lost.
    """
    progress, status, reason = Progress(), "FAILED", "an error ended it"
    try:
        with LiveDisplay() as display:
            for number in looks_until(question.max_seeds):
                if not _train(pool, store, pair, number, progress, display):
                    break
                _look(pair, number, question, progress, display)
                if progress.looks[-1].conclusion != UNDECIDED:
                    break
        if pool.stop_requests < 2:
            for side in pair:
                side.summarize()
        status, reason = _final_status(pool, progress)
    finally:
        for side in pair:
            side.finish(status, reason)
    return progress


def _train(
    pool: Pool, store: Store, pair: tuple[Side, Side], number: int, progress: Progress, display: LiveDisplay
) -> bool:
    """Train what is missing of the first seeds, in pairs; return whether all runs are there."""
    jobs = [job for job in chain(*zip_longest(*(side.jobs(number) for side in pair))) if job is not None]
    if jobs and not pool.stop_requests:
        title = " or ".join(side.name for side in pair)
        results = run_jobs(pool, jobs, store, display, title=title, reused=2 * number - len(jobs))
        progress.failed += [result for result in results if result.status != "FINISHED"]
    return not (pool.stop_requests or progress.failed)


def _look(pair: tuple[Side, Side], number: int, question: Question, progress: Progress, display: LiveDisplay) -> None:
    ours, theirs = (side.runs(number) for side in pair)
    for side, runs in zip(pair, (ours, theirs), strict=True):
        if len(runs) < number:
            raise UserError(
                f"{side.name}: {number - len(runs)} of {number} runs were deleted, or are sent by litlab sync"
            )
    progress.measure = progress.measure or find_measure(question.metric, ours, theirs)
    look = look_at(progress.measure, ours, theirs, question.margin, level_of(question.max_seeds))
    progress.looks.append(look)
    display.print(f"{progress.measure.metric}: {describe(look)}")


def _final_status(pool: Pool, progress: Progress) -> tuple[str, str]:
    if pool.stop_requests:
        return "KILLED", "stopped"
    return ("FAILED" if progress.failed else "FINISHED"), "; ".join(result.failure for result in progress.failed)

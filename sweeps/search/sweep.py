"""Search an experiment's keys with Optuna, then confirm the best configuration on fresh seeds."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.config.arguments import Keep
from pipelines.config.request import read_request
from pipelines.runtime.errors import UserError
from pipelines.tracking.endings import notified
from pipelines.tracking.labels import Labels
from pipelines.tracking.store import Store
from pipelines.tracking.summary_runs import keep_code, label
from pipelines.tracking.tags import FOLD_PARAM, FOLDS_PARAM
from sweeps.cluster.options import AUTO, StackSize, check_stacked, make_pool
from sweeps.cluster.place import Place
from sweeps.search.samplers import check_names
from sweeps.search.space import NOT_SEARCHED, Space, split_keys
from sweeps.search.space_files import normalize_key, read_space
from sweeps.search.trial_state import BestTrial, count_states
from sweeps.workers.job import IN_SPACE, Job, as_arguments

if TYPE_CHECKING:
    from sweeps.search.study import Study
    from sweeps.search.verdict import Confirmed
    from sweeps.workers.pool import Pool


@dataclass(frozen=True)
class SweepResult:
    """State of a study when `sweep` returns.

    Attributes:
        study: The study's name.
        space: What it searches.
        n_finished: How many trials have ended and count, see `trial_state`.
        n_failed: How many of these failed.
        best: The best trial; None if no trial is complete.
        confirmed: Finished runs on fresh seeds, of "best" and of "default", the experiment's own configuration; empty
            if there was no confirmation.
        verdict: Whether the best configuration is better than the default, see `judge_confirmation`; "" if unknown.
        run_id: Id of the study's own run.
        storage: URL of Optuna's storage.
        tracking_uri: URI of the tracking store.
        stop_signal: The signal that stopped the sweep, or None.
    """

    study: str
    space: Space
    n_finished: int
    n_failed: int
    best: BestTrial | None
    confirmed: "Confirmed"
    verdict: str
    run_id: str
    storage: str
    tracking_uri: str
    stop_signal: int | None

    @property
    def n_unconfirmed(self) -> int:
        """Number of runs on fresh seeds that failed or were stopped."""
        return sum(self.space.confirm - len(runs) for runs in self.confirmed.values())


def sweep(
    space: str | Path,
    *,
    trials: int | None = None,
    timeout: float | str | None = None,
    trial_timeout: float | str | None = None,
    sampler: str | None = None,
    pruner: str | None = None,
    seeds: int | None = None,
    folds: int | None = None,
    confirm: int | None = None,
    keep: Keep | None = None,
    workers: int | None = None,
    stacked: StackSize = 1,
    cluster: str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    study: str | None = None,
    storage: str | None = None,
    retry_failed: bool = False,
    tracking_uri: str | None = None,
    overrides: Sequence[str] = (),
    labels: Labels | None = None,
    system_metrics: bool = False,
    command: str = "",
    notify: str = "",
) -> SweepResult:
    """Search a space until the study has its total of trials, then train and test the best on fresh seeds.

    A study that exists is continued. Ctrl-C and SIGTERM stop the sweep gracefully, a second one at once; call it
    in the main thread.

    Args:
        space: Name or YAML file of a space. The arguments from `trials` to `keep` override those of the file.
        trials: Number of trials in total.
        timeout: Seconds, or text such as "2h".
        trial_timeout: Seconds, or text such as "10m".
        sampler: "grid", or the name of one of Optuna's samplers.
        pruner: "none", or the name of one of Optuna's pruners.
        seeds: Runs of each configuration.
        folds: Number of folds of the data, each of which validates once.
        confirm: Runs of the best configuration on fresh seeds.
        keep: Whose checkpoints to keep.
        workers: Trainings in parallel, which share CPU cores and GPUs; see `Place`, as the three below.
        stacked: Models that a worker trains as one; "auto" for as many as fit in memory.
        cluster: A Ray cluster on which to train.
        cpus: CPUs of each training there.
        gpus: GPUs of each training there.
        study: The study's name; the space's unless given.
        storage: URL of Optuna's storage, or path of a journal file; default: optuna.db next to the runs' database.
        retry_failed: Whether to train the configurations of failed trials again; each counts once.
        tracking_uri: URI of the tracking store.
        overrides: Keys of the experiment for all trials, as on the command line.
        labels: Tags, note and name of the study's run; the runs of trials have the tags too.
        system_metrics: Whether to measure the machine during each run; see `Run`.
        command: Recorded in the study's run.
        notify: Command to run in a shell when the sweep has ended; see `notified`.

    Raises:
        UserError: An argument or the experiment is refused, another process runs the study, or a database is lost.
    """
    check_stacked(stacked)
    changes = {"trials": trials, "timeout": timeout, "trial_timeout": trial_timeout, "sampler": sampler}
    changes |= {"pruner": pruner, "seeds": seeds, "folds": folds, "confirm": confirm, "keep": keep}
    searched = read_space(str(space), {key: value for key, value in changes.items() if value is not None})
    if searched.folds is not None and stacked != 1:
        raise UserError("--stacked: folds have different data; leave it out")
    _check_overrides(searched, overrides)
    _check_keys(searched, overrides)
    check_names(searched)

    where = Place(cluster, workers, cpus, gpus)
    with (
        tempfile.TemporaryDirectory(prefix="litlab-sweep-") as folder,
        make_pool(where, Path(folder), searched.trial_timeout, system_metrics=system_metrics) as pool,
    ):
        pool.warm_up()  # imports torch and Lightning in the background
        place = study or searched.name, storage, tracking_uri
        own = labels or Labels(), command, notify
        return run_sweep(searched, pool, *place, overrides, stacked, *own, retry_failed=retry_failed)


def _check_overrides(space: Space, overrides: Sequence[str]) -> None:
    """Refuse to fix a key that is searched, or that a study sets itself."""
    searched = {key for name in space.space for key in split_keys(name)}
    for key in (normalize_key(token.partition("=")[0][2:]) for token in overrides if token.startswith("--")):
        if key in ("seed_everything", "name", FOLD_PARAM, FOLDS_PARAM):
            raise UserError(f"--{key}: {NOT_SEARCHED[key]}")
        if key in searched:
            raise UserError(f"--{key} is searched by space {space.name}; remove it from the space to fix it")


def _check_keys(space: Space, overrides: Sequence[str]) -> None:
    """Check what can be seen without the experiment's classes, before worker processes start."""
    names = [f"--{key}" for name in space.space for key in split_keys(name)]
    try:
        read_request("sweep", [space.experiment, *as_arguments(space.fixed()), *names, *overrides])
    except UserError as error:
        raise UserError(f"{space.experiment}: {error}") from error


def run_sweep(
    space: Space,
    pool: "Pool",
    name: str,
    storage: str | None,
    tracking_uri: str | None,
    overrides: Sequence[str],
    stacked: StackSize,
    labels: Labels,
    command: str,
    notify: str,
    *,
    retry_failed: bool,
) -> SweepResult:
    """Search a space with the workers of a pool; for the arguments see `sweep`."""
    from sweeps.search.display import SweepDisplay
    from sweeps.search.lock import controller_name, sole_controller
    from sweeps.search.open_study import open_study
    from sweeps.search.run_study import run_study
    from sweeps.search.selection import selection_arguments
    from sweeps.search.storage import storage_url
    from sweeps.search.study_run import open_parent
    from sweeps.search.trial_runs import TrialRuns
    from sweeps.search.verdict import judge_confirmation
    from sweeps.workers.batch import graceful_shutdown

    store = Store(tracking_uri, opened=False)  # nothing is created for a space that is refused
    pool.check_store(store)
    url = storage_url(storage, store)
    fixed = [space.experiment, *as_arguments(space.fixed()), *overrides]
    try:
        points = [space.settings(point) for point in space.end_points()]
        facts = pool.check(Job(fixed, stacked=stacked != 1), points)
        pool.use_nodes(facts["nodes"])
    except UserError as error:
        raise _with_source(error, space) from error
    space = space.with_metric(facts["values"].get("monitor") or facts["monitor"])
    store.open()
    with sole_controller(url, name) as optuna_storage, SweepDisplay() as display:
        study = open_study(optuna_storage, name, space, facts, controller_name(), store)
        if retry_failed:
            display.print(f"{name}: failed trials queued again: {study.retry_failed()}")
        with graceful_shutdown(pool) as signals:
            parent = open_parent(store, study, command)
            label(parent, labels)
            selection = selection_arguments(study.optuna, space, facts)
            tags = {**labels.tags, **keep_code(parent)}
            runs = TrialRuns(study, parent, [*fixed, *selection], facts["devices"], tags, bool(selection))
            with notified(notify, parent, runs.experiment, lambda: _best_value(study)):
                confirmed = run_study(runs, pool, display, facts["stack_size"] if stacked == AUTO else stacked)
        return SweepResult(
            study=name,
            space=space,
            n_finished=study.n_finished(),
            n_failed=count_states(study.counted())["failed"],
            best=study.best(),
            confirmed=confirmed,
            verdict=judge_confirmation(confirmed, study.space),
            run_id=parent.run_id,
            storage=url,
            tracking_uri=store.uri,
            stop_signal=signals[0] if signals else None,
        )


def _with_source(error: UserError, space: Space) -> UserError:
    """Return an error of the check that names where the value stands: the file of the space, or the experiment."""
    message = str(error)
    if message.startswith(IN_SPACE):
        return UserError(f"{space.file}: {message}" if space.file else message)
    in_set = next((key for key in space.set if message.startswith((f"{key} ", f"{key}:"))), None)
    return UserError(f"{space.file}: set: {message}" if in_set and space.file else f"{space.experiment}: {message}")


def _best_value(study: "Study") -> tuple[str, float] | None:
    best = study.best()
    return None if best is None else (study.space.metric, best.value)

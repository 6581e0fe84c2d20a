"""State and best configuration of a study, read from its storage without changing it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.store import Store
from pipelines.tracking.tags import VERDICT_TAG
from sweeps.search.lock import controller_of
from sweeps.search.open_study import GRID, IDENTITY, TOTAL
from sweeps.search.storage import open_storage, sqlite_path, storage_url
from sweeps.search.study import PARENT
from sweeps.search.trial_state import (
    INTERRUPTED,
    INVALID,
    REASON,
    BestTrial,
    TrialStatus,
    best_trial,
    count_states,
    counted_trials,
    describe_trial,
    is_own,
)

if TYPE_CHECKING:
    from optuna import Study


@dataclass(frozen=True)
class FailedTrial(TrialStatus):
    """A trial that failed, and why."""

    reason: str


@dataclass(frozen=True)
class StudyStatus:
    """State of a study. `litlab sweep status --json` prints these attributes.

    Attributes:
        study: The study's name.
        metric: The objective.
        direction: "maximize" or "minimize".
        trials: How many trials are complete, pruned, failed and running; and of those that do not count, how many were
            interrupted, were queued with a point that is not in the space, or are of other programs.
        total: Number of trials of the complete study.
        controller: The process that runs the study, "process PID of USER on HOST since TIME"; None without one.
        best: The best complete trial.
        running: Trials in training.
        failed: Trials that failed, including those whose point is not in the space.
        parent: Id of the study's own run.
        verdict: Whether the best configuration is better than the default on fresh seeds; "" if unknown.
    """

    study: str
    metric: str | None
    direction: str
    trials: dict[str, int]
    total: int | None
    controller: str | None
    best: BestTrial | None
    running: list[TrialStatus]
    failed: list[FailedTrial]
    parent: str | None
    verdict: str = ""


@dataclass(frozen=True)
class BestConfiguration:
    """A study's best trial, and its configuration as YAML for `litlab fit -c`.

    Attributes:
        better: Numbers of better trials that another program added to the study; they have no configuration.
        verdict: See `StudyStatus`.
    """

    trial: BestTrial
    config: str
    better: list[int]
    verdict: str = ""


def sweep_status(study: str, *, storage: str | None = None, tracking_uri: str | None = None) -> StudyStatus:
    """Return what a study has done and is doing, and which trials failed. For the arguments see `sweep`.

    Raises:
        UserError: There is no such study.
    """
    store = Store(tracking_uri, opened=False)
    url = storage_url(storage, store)
    loaded, controller = _load(url, study)
    trials, attributes, direction = loaded.trials, loaded.user_attrs, loaded.direction.name.lower()
    running = [trial for trial in trials if controller and trial.state.name == "RUNNING" and is_own(trial)]
    counted = counted_trials(trials, is_grid=attributes.get(GRID, False))
    failed = [trial for trial in trials if INVALID in trial.user_attrs]
    failed += [trial for trial in counted if trial.state.name == "FAIL"]
    interrupted = sum(INTERRUPTED in trial.user_attrs for trial in trials)
    return StudyStatus(
        study=loaded.study_name,
        metric=attributes.get(IDENTITY, {}).get("metric"),
        direction=direction,
        trials={
            **count_states(counted),
            "running": len(running),
            "interrupted": interrupted,
            "not in the space": sum(INVALID in trial.user_attrs for trial in trials),
            "of other programs": sum(trial.state.name != "WAITING" and not is_own(trial) for trial in trials),
        },
        total=attributes.get(TOTAL),
        controller=controller,
        best=best_trial(trials, direction),
        running=[TrialStatus(**describe_trial(trial)) for trial in running],
        failed=[FailedTrial(**describe_trial(trial), reason=trial.user_attrs.get(REASON, "")) for trial in failed],
        parent=attributes.get(PARENT),
        verdict=_verdict(store, attributes.get(PARENT)),
    )


def best_configuration(study: str, *, storage: str | None = None, tracking_uri: str | None = None) -> BestConfiguration:
    """Return the best trial's configuration. For the arguments see `sweep`.

    Raises:
        UserError: There is no such study, no trial is complete, or its run is not in this tracking store.
    """
    store = Store(tracking_uri, opened=False)
    loaded, _ = _load(storage_url(storage, store), study)
    best = best_trial(loaded.trials, loaded.direction.name.lower())
    if best is None:
        raise UserError(f"study {loaded.study_name} has no complete trial of litlab yet")
    if not best.runs:
        raise UserError(f"trial {best.trial} of study {loaded.study_name} has no run")
    sign = 1 if loaded.direction.name == "MAXIMIZE" else -1
    others = (trial for trial in loaded.trials if trial.state.name == "COMPLETE" and not is_own(trial))
    better = [trial.number for trial in others if sign * (trial.value or 0.0) > sign * best.value]
    config = store.find(best.runs[0]).file("config.yaml").read_text()
    return BestConfiguration(best, config, better, _verdict(store, loaded.user_attrs.get(PARENT)))


def _verdict(store: Store, run_id: str | None) -> str:
    """Return the verdict that the study's own run recorded; "" if there is none, or no such run."""
    from mlflow.exceptions import MlflowException

    try:
        return store.find(run_id).tags.get(VERDICT_TAG, "") if run_id else ""
    except (UserError, MlflowException):  # it is in another store
        return ""


def _load(url: str, name: str) -> "tuple[Study, str | None]":
    """Return a study, whose name may be given as the path of its space, and the process that runs it."""
    import optuna

    path, name = sqlite_path(url), name.removesuffix(".yaml").removesuffix(".yml").rpartition("/")[2]
    if path is not None and not path.is_file():
        raise UserError(f"there is no study yet: {path} does not exist (litlab sweep NAME creates it)")
    storage = open_storage(url)
    try:
        return optuna.load_study(study_name=name, storage=storage), controller_of(url, name, storage)
    except KeyError as error:
        names = ", ".join(optuna.get_all_study_names(storage)) or "none"
        raise UserError(
            f"there is no study {name!r} in {redact_credentials(url)}; available studies: {names}"
        ) from error

"""State and best configuration of a study, read from its storage without changing it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.store import Store
from sweeps.search.heartbeat import at_work
from sweeps.search.storage import lock_holder, open_storage, sqlite_path, storage_url
from sweeps.search.study import IDENTITY, PARENT, TOTAL
from sweeps.search.trial_state import (
    CONTROLLER,
    INTERRUPTED,
    REASON,
    RUNS,
    best_trial,
    count_states,
    is_counted,
    seed_values,
)

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class TrialStatus:
    """A trial: its number, its params, and how many epochs have been reported."""

    trial: int
    params: dict[str, Any]
    epochs: int


@dataclass(frozen=True)
class BestTrialStatus(TrialStatus):
    """The best trial: its value, the values of its seeds, and the ids of its runs."""

    value: float
    seeds: list[float]
    runs: list[str]


@dataclass(frozen=True)
class RunningTrialStatus(TrialStatus):
    """A trial in training, and the controller that has it."""

    controller: str | None


@dataclass(frozen=True)
class FailedTrialStatus(TrialStatus):
    """A trial that failed, and why."""

    reason: str


@dataclass(frozen=True)
class StudyStatus:
    """State of a study. `litlab sweep status --json` prints these attributes.

    Attributes:
        study: The study's name.
        metric: The objective.
        direction: "maximize" or "minimize".
        trials: How many trials are complete, pruned, failed, running and interrupted.
        total: Number of trials of the complete study.
        controllers: Names of the controllers that are alive; of a study in SQLite, the process that holds it.
        best: The best complete trial.
        running: Trials in training.
        failed: Trials that failed.
        parent: Id of the study's own run.
    """

    study: str
    metric: str | None
    direction: str
    trials: dict[str, int]
    total: int | None
    controllers: list[str]
    best: BestTrialStatus | None
    running: list[RunningTrialStatus]
    failed: list[FailedTrialStatus]
    parent: str | None


@dataclass(frozen=True)
class BestConfiguration:
    """A study's best trial, and its configuration as YAML for `litlab fit -c`."""

    trial: BestTrialStatus
    config: str


def sweep_status(study: str, *, storage: str | None = None, tracking_uri: str | None = None) -> StudyStatus:
    """Return what a study has done and is doing, and which trials failed.

    Args:
        study: The study's name: the space's, unless `sweep` got another.
        storage: See `sweep`.
        tracking_uri: See `sweep`.

    Raises:
        UserError: There is no such study.
    """
    url = storage_url(storage, Store(tracking_uri))
    return _status(_load(url, study), lock_holder(sqlite_path(url), _study_name(study)))


def best_configuration(study: str, *, storage: str | None = None, tracking_uri: str | None = None) -> BestConfiguration:
    """Return the best trial's configuration.

    Args:
        study: See `sweep_status`.
        storage: See `sweep`.
        tracking_uri: See `sweep`.

    Raises:
        UserError: There is no such study, no trial is complete, or its run is not in this tracking store.
    """
    store = Store(tracking_uri)
    best = _best(_load(storage_url(storage, store), study))
    if best is None:
        raise UserError(f"study {_study_name(study)} has no complete trial yet")
    if not best.runs:
        raise UserError(f"trial {best.trial} of study {_study_name(study)} has no run")
    return BestConfiguration(best, store.find(best.runs[0]).file("config.yaml").read_text())


def _study_name(name: str) -> str:
    """Return the study's name, which may be given as the path of its space."""
    return name.removesuffix(".yaml").removesuffix(".yml").rpartition("/")[2]


def _load(url: str, name: str) -> "Study":
    import optuna

    path, name = sqlite_path(url), _study_name(name)
    if path is not None and not path.is_file():
        raise UserError(f"there is no study yet: {path} does not exist (litlab sweep NAME creates it)")
    storage = open_storage(url)
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        names = ", ".join(optuna.get_all_study_names(storage)) or "none"
        raise UserError(
            f"there is no study {name!r} in {redact_credentials(url)}; available studies: {names}"
        ) from error


def _status(study: "Study", holder: str | None) -> StudyStatus:
    """Return a study's state.

    Args:
        study: The study.
        holder: The process that holds its lock, where the storage has one.
    """
    trials = study.get_trials(deepcopy=False)
    attributes = study.user_attrs
    controllers = [holder] if holder else at_work(study)
    running = [trial for trial in trials if trial.state.name == "RUNNING"]
    if not holder:
        running = [trial for trial in running if trial.user_attrs.get(CONTROLLER) in controllers]
    failed = [trial for trial in trials if trial.state.name == "FAIL" and is_counted(trial)]
    return StudyStatus(
        study=study.study_name,
        metric=attributes.get(IDENTITY, {}).get("metric"),
        direction=study.direction.name.lower(),
        trials={
            **count_states(trials),
            "running": len(running),
            "interrupted": sum(INTERRUPTED in trial.user_attrs for trial in trials),
        },
        total=attributes.get(TOTAL),
        controllers=controllers,
        best=_best(study),
        running=[
            RunningTrialStatus(**_described(trial), controller=trial.user_attrs.get(CONTROLLER)) for trial in running
        ],
        failed=[FailedTrialStatus(**_described(trial), reason=trial.user_attrs.get(REASON, "")) for trial in failed],
        parent=attributes.get(PARENT),
    )


def _best(study: "Study") -> BestTrialStatus | None:
    trial = best_trial(study.get_trials(deepcopy=False), study.direction.name.lower())
    if trial is None or trial.value is None:
        return None
    return BestTrialStatus(
        **_described(trial), value=trial.value, seeds=seed_values(trial), runs=trial.user_attrs.get(RUNS, [])
    )


def _described(trial: "FrozenTrial") -> dict[str, Any]:
    return {"trial": trial.number, "params": trial.params, "epochs": max(trial.intermediate_values, default=0)}

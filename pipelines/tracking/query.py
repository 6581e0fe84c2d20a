"""Finished runs, found by experiment, study or id with MLflow's own search; nothing heavy is imported."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.gc_pause import gc_paused
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.store import Store
from pipelines.tracking.tags import DIGEST, EXPERIMENT, NOT_COMPARED, SEEDS, STAGE, stands_for_others

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_KEYS = re.compile(r"`[^`]*`|'[^']*'|\"[^\"]*\"|\b((?:param(?:eter)?|metric|tag)s?\.)([\w./-]+)")


@dataclass(frozen=True)
class Found:
    """A finished run.

    Attributes:
        experiment: The name of its MLflow experiment.
        configuration: What makes runs alike: experiment, stage of a sweep, params, digests of the data; not the seed.
        seed: As it says; a run that says none has its own id.
        started: Milliseconds since 1970.
    """

    run_id: str
    name: str
    experiment: str
    configuration: dict[str, str]
    seed: str
    metrics: dict[str, float]
    tags: dict[str, str]
    started: int


@dataclass(frozen=True)
class Selection:
    """The runs that were asked for.

    Attributes:
        names: What was asked for.
        wanted: The filter that was asked for.
        runs: All of them finished, none that stands for others.
        metric: What a study was searched by; None if no study was asked for.
        direction: "maximize" or "minimize", as the study has it; None if no study was asked for.
        parents: Ids of the runs that stand for others, named by their own id or as a study.
        notes: What a person should know of the choice.
    """

    names: list[str]
    runs: list[Found]
    metric: str | None = None
    parents: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    direction: str | None = None
    wanted: str = ""


def select(store: Store, names: Sequence[str], wanted: str = "") -> Selection:
    """Find finished runs.

    Args:
        store: Where the runs are.
        names: MLflow experiments, studies, ids of runs; a run that stands for others means those. Empty: all.
        wanted: A filter in MLflow's syntax; keys with dots and slashes need no backquotes.

    Raises:
        UserError: A name is unknown, or the filter is not understood.
    """
    from mlflow.exceptions import MlflowException

    try:
        with gc_paused():
            return _select(store, names, wanted)
    except MlflowException as error:
        said = redact_credentials(str(error).splitlines()[0])
        if wanted and error.error_code == "INVALID_PARAMETER_VALUE":
            raise UserError(f"--filter {wanted}: {said}") from error
        raise UserError(f"the runs at {redact_credentials(store.uri)} cannot be reached: {said}") from error


def _select(store: Store, names: Sequence[str], wanted: str) -> Selection:
    experiments = _experiments(store)
    ids = {name: number for number, name in experiments.items()}
    chosen = [] if names else list(experiments)
    parents: list[str] = []
    runs: list[Any] = []
    notes: list[str] = []
    for name in names:
        if _RUN_ID.fullmatch(name):
            found, parent, said = _of_run(store, name, wanted)
            runs, parents, notes = runs + found, parents + parent, notes + said
            continue
        study = f"{name}-sweep"
        if name not in ids and study not in ids:
            raise UserError(_unknown(name, sorted(ids), store))
        if name in ids and study in ids:
            notes.append(
                f"{name} is an experiment and a study; these are the experiment's runs, {study} has the study's"
            )
        chosen.append(ids[name] if name in ids else ids[study])
    runs += store.search(chosen, _filter(wanted))
    parents = list(dict.fromkeys([*parents, *(_studies(store, chosen) if names else [])]))
    kept = {run.info.run_id: _found(run, experiments) for run in runs if not stands_for_others(run.data.tags)}
    metric, direction = _searched_by(store, parents)
    return Selection(list(names), list(kept.values()), metric, parents, notes, direction, wanted)


def _experiments(store: Store) -> dict[str, str]:
    """The names of all experiments, by id."""
    page = store.client.search_experiments()
    found = list(page)
    while page.token:
        page = store.client.search_experiments(page_token=page.token)
        found += page
    return {str(experiment.experiment_id): str(experiment.name) for experiment in found}


def _of_run(store: Store, run_id: str, wanted: str) -> tuple[list[Any], list[str], list[str]]:
    """A run; or the runs that it stands for, and its own id; and what to say if there is none."""
    named = store.find(run_id)
    stands = stands_for_others(named.tags)
    these = f"tags.mlflow.parentRunId = '{run_id}'" if stands else f"attributes.run_id = '{run_id}'"
    found = store.search([named.experiment_id], _filter(these, wanted))
    status = "deleted" if named.status == "FINISHED" else named.status
    said = "stands for runs of which none is finished" if stands else f"is left out: it is {status}"
    return found, [run_id] if stands else [], [] if found or wanted else [f"run {run_id} {said}"]


def _studies(store: Store, experiments: Sequence[str]) -> list[str]:
    """The runs of studies, the latest first."""
    wanted = "tags.study IS NOT NULL and tags.mlflow.parentRunId IS NULL"
    found = store.search(experiments, wanted, ["attributes.start_time DESC"])
    return [str(run.info.run_id) for run in found if stands_for_others(run.data.tags)]


def _searched_by(store: Store, parents: Sequence[str]) -> tuple[str | None, str | None]:
    """Metric and direction of the first study among them."""
    for run in map(store.client.get_run, parents):
        if "study" in run.data.tags and "metric" in run.data.params:
            return f"selected/{run.data.params['metric']}", run.data.params.get("direction")
    return None, None


def _filter(*wanted: str) -> str:
    """Finished runs that all of these want, with keys in backquotes, as MLflow has them if they hold a slash."""

    def quoted(match: re.Match[str]) -> str:
        kind, key = match.groups()
        return f"{kind}`{key}`" if kind else match[0]

    return " and ".join(["attributes.status = 'FINISHED'", *(_KEYS.sub(quoted, text) for text in wanted if text)])


def _unknown(name: str, known: Sequence[str], store: Store) -> str:
    near = get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{name!r} is no experiment, study or run in {redact_credentials(store.uri)}{hint}"


def _found(run: Any, experiments: Mapping[str, str]) -> Found:
    info, params, tags = run.info, run.data.params, run.data.tags
    experiment = experiments.get(info.experiment_id, "")
    configuration = {EXPERIMENT: experiment, STAGE: tags.get(STAGE, "")}
    configuration |= {key: params[key] for key in sorted(params) if key not in NOT_COMPARED}
    configuration[DIGEST] = " ".join(tags[key][:8] for key in sorted(tags) if key.startswith(DIGEST))
    said = [tags.get("seed"), *(params.get(key) for key in SEEDS)]
    seed = next((str(one) for one in said if one), str(info.run_id))
    metrics, started = run.data.metrics, info.start_time or 0
    return Found(info.run_id, info.run_name, experiment, configuration, seed, metrics, tags, started)

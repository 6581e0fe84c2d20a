"""Finished runs, found by experiment, study or id with MLflow's own search; nothing heavy is imported."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from pipelines.runtime.errors import UserError
from pipelines.runtime.gc_pause import gc_paused
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import DIRECTION_PARAM, METRIC_PARAM, PARENT_RUN_TAG, SELECTED, STUDY_TAG, is_summary

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_KEYS = re.compile(r"`[^`]*`|'[^']*'|\"[^\"]*\"|\b((?:param(?:eter)?|metric|tag)s?\.)([\w./-]+)")


@dataclass(frozen=True)
class RunSelection:
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
    runs: list[StoredRun]
    metric: str | None = None
    parents: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    direction: str | None = None
    wanted: str = ""


def find_runs(store: Store, names: Sequence[str], wanted: str = "") -> RunSelection:
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


def _select(store: Store, names: Sequence[str], wanted: str) -> RunSelection:
    experiments = store.experiment_names()
    ids = {name: number for number, name in experiments.items()}
    chosen = [] if names else list(experiments)
    parents: list[str] = []
    runs: list[StoredRun] = []
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
    kept = {run.run_id: run for run in runs if not is_summary(run.tags)}
    metric, direction = _searched_by(store, parents)
    return RunSelection(list(names), list(kept.values()), metric, parents, notes, direction, wanted)


def _of_run(store: Store, run_id: str, wanted: str) -> tuple[list[StoredRun], list[str], list[str]]:
    """A run; or the runs that it stands for, and its own id; and what to say if there is none."""
    named = store.find(run_id)
    stands = is_summary(named.tags)
    these = f"tags.{PARENT_RUN_TAG} = '{run_id}'" if stands else f"attributes.run_id = '{run_id}'"
    found = store.search([named.experiment_id], _filter(these, wanted))
    status = "deleted" if named.status == "FINISHED" else named.status
    said = "stands for runs of which none is finished" if stands else f"is left out: it is {status}"
    return found, [run_id] if stands else [], [] if found or wanted else [f"run {run_id} {said}"]


def _studies(store: Store, experiments: Sequence[str]) -> list[str]:
    """The runs of studies, the latest first."""
    wanted = f"tags.{STUDY_TAG} IS NOT NULL and tags.{PARENT_RUN_TAG} IS NULL"
    found = store.search(experiments, wanted, ["attributes.start_time DESC"])
    return [run.run_id for run in found if is_summary(run.tags)]


def _searched_by(store: Store, parents: Sequence[str]) -> tuple[str | None, str | None]:
    """Metric and direction of the first study among them."""
    for run in map(store.find, parents):
        if STUDY_TAG in run.tags and METRIC_PARAM in run.params:
            return f"{SELECTED}/{run.params[METRIC_PARAM]}", run.params.get(DIRECTION_PARAM)
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

"""Find finished runs by experiment, study or run id. Imports neither torch nor Lightning."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import counted, first_line
from pipelines.tracking.client import unreachable
from pipelines.tracking.deleted import RunDeletedError
from pipelines.tracking.filters import FINISHED, RunFilter, parse_filter
from pipelines.tracking.run_names import NEWEST_FIRST, look_up, unknown_name
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import (
    DIRECTION_PARAM,
    METRIC_PARAM,
    PARENT_RUN_TAG,
    SELECTED,
    STUDY_TAG,
    SWEEP_SUFFIX,
    VERDICT_TAG,
    is_of_litlab,
    is_summary,
    was_lost,
)

_IS_STUDY = f"tags.{STUDY_TAG} IS NOT NULL and tags.{PARENT_RUN_TAG} IS NULL"


@dataclass(frozen=True)
class RunSelection:
    """Finished runs that match names and a filter.

    Attributes:
        names: The names that were given.
        runs: The runs, without summary runs.
        metric: The study's metric, such as "selected/val/acc"; None if no study was named.
        parents: Ids of the summary runs that were named by their id or as a study.
        notes: What the user should know about the selection.
        direction: The study's direction, "maximize" or "minimize"; None if no study was named.
        filter_string: The filter that was given.
    """

    names: list[str]
    runs: list[StoredRun]
    metric: str | None = None
    parents: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    direction: str | None = None
    filter_string: str = ""


def find_runs(store: Store, names: Sequence[str], filter_string: str = "") -> RunSelection:
    """Find finished runs.

    Args:
        store: The tracking store.
        names: Experiments, studies or runs, which are named as for `find_run`. A summary run selects the runs that it
            summarises. Empty selects all experiments.
        filter_string: MLflow filter, in which params can also be compared as numbers; see `parse_filter`.

    Raises:
        UserError: A name is unknown, the filter is invalid, or the store cannot be reached.
    """
    with explained_requests(store, filter_string):
        return _select(store, names, filter_string)


@contextmanager
def explained_requests(store: Store, filter_string: str) -> Iterator[None]:
    """Raise UserError if the store refuses the user's filter or is unavailable."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if filter_string and error.error_code == "INVALID_PARAMETER_VALUE":
            raise UserError(f"--filter {filter_string}: {first_line(error)}") from error
        raise UserError(unreachable(store.uri, error)) from error


def _select(store: Store, names: Sequence[str], filter_string: str) -> RunSelection:
    ids = {name: experiment_id for experiment_id, name in store.experiment_names().items()}
    finished = parse_filter(FINISHED, filter_string)
    selected_ids = [] if names else list(ids.values())
    runs, notes, parents = list[StoredRun](), list[str](), dict[str, StoredRun]()
    for name in names:
        study = f"{name}{SWEEP_SUFFIX}"
        if name in ids or study in ids:
            selected_ids.append(ids[name if name in ids else study])
            if name in ids and study in ids and _is_newer(store, ids[study], ids[name]):
                notes.append(f"{name} is an experiment and a study; the experiment is shown. The study: {study}")
            continue
        try:
            named = look_up(store, name)
        except RunDeletedError as error:
            notes.append(f"left out: {error}")
            continue
        if named is None:
            raise UserError(unknown_name(store, name, ids))
        if summary := is_summary(named.tags):
            parents[named.run_id] = named
        by_id = f"tags.{PARENT_RUN_TAG} = '{named.run_id}'" if summary else f"attributes.run_id = '{named.run_id}'"
        found = search_matching(store, [named.experiment_id], parse_filter(by_id, FINISHED, filter_string))
        runs += found
        if not found and not filter_string:
            left_out = f"is left out: it is {named.status}"
            reason = "summarises runs, but none of them is finished" if summary else left_out
            notes.append(f"run {named.run_id} {reason}")
    for group in [[one] for one in selected_ids] if names else [selected_ids]:
        found, note = _set_apart(search_matching(store, group, finished))
        runs, notes = runs + found, notes + note
    if names:
        studies = store.search(selected_ids, _IS_STUDY, ["attributes.start_time DESC"])
        parents = {run.run_id: run for run in (*parents.values(), *studies) if is_summary(run.tags)}
    runs, note = _without_lost(runs)
    notes += note
    searched = (run for run in parents.values() if STUDY_TAG in run.tags and METRIC_PARAM in run.params)
    params = next((run.params for run in searched), {})  # of the first study
    judged = (run for run in parents.values() if VERDICT_TAG in run.tags)
    notes += [f"{run.experiment}: on fresh seeds, the best is {run.tags[VERDICT_TAG]}" for run in judged]
    return RunSelection(
        names=list(names),
        runs=list({run.run_id: run for run in runs if not is_summary(run.tags)}.values()),
        metric=f"{SELECTED}/{params[METRIC_PARAM]}" if params else None,
        parents=list(parents),
        notes=notes,
        direction=params.get(DIRECTION_PARAM),
        filter_string=filter_string,
    )


def _is_newer(store: Store, study: str, experiment: str) -> bool:
    """Return whether the last run of a study began after that of an experiment, so that the study may be meant."""
    newest = [store.search([each], "", NEWEST_FIRST, 1) for each in (study, experiment)]
    started = [runs[0].started if runs else 0 for runs in newest]
    return started[0] > started[1]


def search_matching(
    store: Store,
    experiment_ids: Sequence[str],
    run_filter: RunFilter,
    order_by: Sequence[str] = (),
    limit: int | None = None,
) -> list[StoredRun]:
    """Return the first runs of these experiments that match both parts of a filter; all of them without a limit."""
    found = store.search(experiment_ids, run_filter.mlflow, order_by, None if run_filter.conditions else limit)
    return [run for run in found if run_filter.matches(run.params)][:limit]


def _without_lost(runs: Sequence[StoredRun]) -> tuple[list[StoredRun], list[str]]:
    """Leave out runs that finished after they had been lost with their node, with a note."""
    lost = {run.run_id for run in runs if was_lost(run.tags)}
    if not lost:
        return list(runs), []
    are = counted(len(lost), "run is", "runs are")
    note = f"{are} left out: finished, but after a node was lost and the training was given to another run"
    return [run for run in runs if run.run_id not in lost], [note]


def _set_apart(runs: Sequence[StoredRun]) -> tuple[list[StoredRun], list[str]]:
    """Leave out runs of other programs if litlab's are among them, with a note: most of their params are others."""
    own = [run for run in runs if is_of_litlab(run.tags) and not is_summary(run.tags)]
    known = {key for run in own for key in run.params}

    def is_other(run: StoredRun) -> bool:
        return not is_of_litlab(run.tags) and 2 * len(known & run.params.keys()) <= len(run.params)

    others = {run.run_id: run for run in runs if is_other(run)}
    if not own or not others:
        return list(runs), []
    experiments = ", ".join(sorted({run.experiment for run in others.values()}))
    count = counted(len(others), "run of another program is", "runs of other programs are")
    return [run for run in runs if run.run_id not in others], [
        f"{count} left out, in {experiments}; to compare them, name their experiment or their ids"
    ]

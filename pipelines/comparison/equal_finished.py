"""Find a finished run that a new one would repeat: same configuration, seed, data and code."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipelines.comparison.equal_runs import EqualRuns
from pipelines.runtime.text import param_text
from pipelines.tracking.filters import FINISHED, quoted
from pipelines.tracking.folds import fold_of
from pipelines.tracking.run_names import NEWEST_FIRST
from pipelines.tracking.source_code import same_code
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import COMMIT_TAG, CONTINUES_TAG, DIFF_TAG, FOLD_PARAM, NO_CHANGES, SEED_TAG, is_summary


def find_equal(store: Store, experiment: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> StoredRun | None:
    """Return the newest finished run that is equal to a new one; None if there is none, or if that is unknown.

    A run whose uncommitted changes were not kept is equal only if it had none, and one that was resumed with other code
    never is.

    Args:
        store: Where the runs are stored.
        experiment: Name of the MLflow experiment.
        params: Params of the new run.
        tags: Its tags, with those of its code and the digests of its data.
    """
    ids = [number for number, name in store.experiment_names().items() if name == experiment]
    same_seed = f"{FINISHED} and tags.{SEED_TAG} = {quoted(tags[SEED_TAG])}"
    found = store.search(ids, same_seed, NEWEST_FIRST)
    found = [run for run in found if _may_be_equal(run, tags) and _same_fold(run, params)]
    return next(iter(_same_configuration(found, params, tags)), None)


def explain(run: StoredRun) -> str:
    """Return why an equal run was found, in one line."""
    data = "data" if run.data_digests else "configuration of the data, which have no digest"
    commit, changes = run.tags.get(COMMIT_TAG, ""), run.tags.get(DIFF_TAG, NO_CHANGES)
    code = (
        f" ({commit[:12]}{'' if changes == NO_CHANGES else ', uncommitted changes ' + changes[:12]})" if commit else ""
    )
    return f"same configuration, seed {run.seed}, {data}, and code{code}"


def _may_be_equal(run: StoredRun, tags: Mapping[str, str]) -> bool:
    is_other = is_summary(run.tags) or run.tags.get(CONTINUES_TAG) != tags.get(CONTINUES_TAG)
    return not is_other and same_code(run.tags, tags)


def _same_fold(run: StoredRun, params: Mapping[str, Any]) -> bool:
    return fold_of(run.params) in (None, param_text(params.get(FOLD_PARAM)))


def _same_configuration(
    runs: Sequence[StoredRun], params: Mapping[str, Any], tags: Mapping[str, str]
) -> list[StoredRun]:
    if not runs:
        return []
    texts = {key: param_text(value) for key, value in params.items()}
    new = replace(runs[0], run_id="", params=texts, tags=dict(tags))
    numbers = EqualRuns([*runs, new]).groups()
    return [run for run in runs if numbers[run.run_id] == numbers[new.run_id]]

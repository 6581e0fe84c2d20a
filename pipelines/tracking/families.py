"""Runs with the runs below them: the trials of a study, the runs of several seeds, the explanations of a run."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.tracking.client import all_pages
from pipelines.tracking.store import PAGE, Store, StoredRun
from pipelines.tracking.tags import PARENT_RUN_TAG

Children = Mapping[str, Sequence[StoredRun]]  # by the id of their parent, oldest first


def children_by_parent(store: Store, experiment_ids: Iterable[str], *, deleted: bool = False) -> Children:
    """Return all runs of these experiments that have a parent; on request also the deleted ones.

    A child is in the experiment of its parent.
    """
    from mlflow.entities import ViewType

    view, ids = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY, sorted(set(experiment_ids))
    order = ["attributes.start_time ASC"]

    def page(token: str | None) -> Any:
        has_parent = f"tags.`{PARENT_RUN_TAG}` IS NOT NULL"
        return store.client.search_runs(ids, has_parent, view, PAGE, order_by=order, page_token=token)

    children: dict[str, list[StoredRun]] = defaultdict(list)
    for run in map(store.read, all_pages(page) if ids else []):
        children[run.tags[PARENT_RUN_TAG]].append(run)
    return children


def with_descendants(runs: Iterable[StoredRun], children: Children) -> list[StoredRun]:
    """Return runs and all runs below them, each once, and a parent before its children."""
    found: dict[str, StoredRun] = {}

    def add(run: StoredRun) -> None:
        if run.run_id not in found:
            found[run.run_id] = run
            for child in children.get(run.run_id, []):
                add(child)

    for run in runs:
        add(run)
    return list(found.values())

"""Copy runs, experiments and studies to another tracking store, each run once."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.runtime.errors import UserError
from pipelines.runtime.files import file_lock
from pipelines.runtime.text import first_line, redact_credentials
from pipelines.tracking.existing import existing_store
from pipelines.tracking.families import children_by_parent, with_descendants
from pipelines.tracking.run_copy import copy_run, link_copies, original_id
from pipelines.tracking.run_log import unsent_logs
from pipelines.tracking.run_names import look_up, unknown_name
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import (
    BEST_RUN_TAG,
    CONTINUES_TAG,
    COPIED_RUN_TAG,
    COPYING_TAG,
    PARENT_RUN_TAG,
    SWEEP_SUFFIX,
)

ENDED = ("FINISHED", "FAILED", "KILLED")
LINKS = (PARENT_RUN_TAG, BEST_RUN_TAG, CONTINUES_TAG)  # tags that name another run


@dataclass(frozen=True)
class CopiedRun:
    """A run, and its copy.

    Attributes:
        run: The run.
        copy_id: Id of the copy.
        is_new: Whether this call made or completed the copy.
    """

    run: StoredRun
    copy_id: str
    is_new: bool


def copy_runs(
    names: Sequence[str],
    to: str,
    *,
    tracking_uri: str | None = None,
    progress: Callable[[int, int, StoredRun], object] = lambda done, total, run: None,
) -> tuple[list[CopiedRun], list[str]]:
    """Copy runs with the runs below them. Runs that were copied before are left as they are.

    Args:
        names: Runs as `find_run` takes them; experiments and studies, with all their runs.
        to: URI of the other store.
        tracking_uri: The store of the runs; by default the project's mlflow.db.
        progress: Called before each run with the number of runs that are done, of all runs, and the run.

    Returns:
        The runs that have a copy now, parents before their children; and why others were left out.

    Raises:
        UserError: A name is unknown, the stores are the same, or one of them is unavailable.
    """
    from mlflow.exceptions import MlflowException

    source, target = existing_store(tracking_uri), Store(to)
    if source.uri == target.uri:
        raise UserError(f"--to {redact_credentials(to)} is the store of the runs; name another one")
    try:
        with _only_copier(target):
            runs, left_out = _selected(source, names)
            return _copy(runs, target, progress), left_out
    except (MlflowException, OSError) as error:
        message = f"the copy is not complete: {first_line(error)}; the same command completes it"
        raise UserError(message) from error


def _copy(
    runs: Sequence[StoredRun], target: Store, progress: Callable[[int, int, StoredRun], object]
) -> list[CopiedRun]:
    copies = {original_id(copy): copy for copy in _copies_in(target, {run.experiment for run in runs})}
    done = []
    for number, run in enumerate(runs):
        progress(number, len(runs), run)
        existing = copies.get(original_id(run)) or _own_run(run, target)
        is_complete = existing is not None and COPYING_TAG not in existing.tags
        if existing is None or not is_complete:
            existing = target.find(copy_run(run, target, existing.run_id if existing else None))
            copies[original_id(run)] = existing
        done.append(CopiedRun(run, existing.run_id, not is_complete))
    ids = {copied.run.run_id: copied.copy_id for copied in done}
    ids |= {origin: copy.run_id for origin, copy in copies.items() if origin not in ids}
    for copied in done:
        copy = copies.get(original_id(copied.run))
        if copy is not None:
            link_copies(copied.run, copy, ids, LINKS)
    return done


def _own_run(run: StoredRun, target: Store) -> StoredRun | None:
    """Return the run that a copy is of, if the copy is copied back to where it comes from."""
    if COPIED_RUN_TAG not in run.tags:
        return None
    try:
        return target.find(original_id(run))
    except UserError:
        return None


def _copies_in(target: Store, experiments: set[str]) -> list[StoredRun]:
    """Return the copies in the target's experiments of these names."""
    ids = [found for found, name in target.experiment_names().items() if name in experiments]
    return target.search(ids, f"tags.`{COPIED_RUN_TAG}` IS NOT NULL", ["attributes.start_time ASC"])


def _selected(source: Store, names: Sequence[str]) -> tuple[list[StoredRun], list[str]]:
    """Return the runs to copy, parents before their children, and why others are left out."""
    named, ids = list[StoredRun](), {name: found for found, name in source.experiment_names().items()}
    for name in names:
        experiment = next((ids[each] for each in (name, f"{name}{SWEEP_SUFFIX}") if each in ids), None)
        if experiment is not None:
            named += source.search([experiment], "", ["attributes.start_time ASC"])
        elif (run := look_up(source, name)) is not None:
            named.append(run)
        else:
            raise UserError(unknown_name(source, name, ids))
    children = children_by_parent(source, {run.experiment_id for run in named})
    below = {child.run_id for found in children.values() for child in found}
    parents_first = sorted(named, key=lambda run: run.run_id in below)
    runs = with_descendants(parents_first, children)
    unsent = {log.run_id for log in unsent_logs(source.uri) if log.uri == redact_credentials(source.uri)}
    left_out, kept = dict[str, str](), list[StoredRun]()
    for run in runs:
        parent = run.tags.get(PARENT_RUN_TAG, "")
        if run.status not in ENDED:
            left_out[run.run_id] = f"run {run.run_id} is {run.status}: copy it when it has ended"
        elif run.run_id in unsent:
            left_out[run.run_id] = f"run {run.run_id} has data that are not sent: litlab sync {run.run_id} first"
        elif parent in left_out:
            left_out[run.run_id] = f"run {run.run_id} is part of a run that is left out"
        else:
            kept.append(run)
    return kept, list(left_out.values())


@contextmanager
def _only_copier(target: Store) -> Iterator[None]:
    """Make sure that no other process of this machine copies to a store: it would copy the same runs twice.

    Raises:
        UserError: Another process does.
    """
    key = hashlib.sha256(target.uri.encode()).hexdigest()[:16]
    path = (target.folder or Path(tempfile.gettempdir())) / f"copy-{key}.lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(path, timeout=0, remove=True))
        except TimeoutError as error:
            raise UserError(f"another process copies runs to {redact_credentials(target.uri)}: wait for it") from error
        yield

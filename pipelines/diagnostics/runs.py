"""Runs that say RUNNING, though nobody is at them any more."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines.diagnostics.finding import Finding, Place, todo
from pipelines.tracking import outbox
from pipelines.tracking.origin import is_alive, is_here
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import COMMAND_TAG, PARENT_RUN_TAG, PARENT_TAG, PROCESS_TAG, SOURCE_NAME_TAG
from pipelines.tracking.uri import local_path

REASON = "its process was gone; ended by litlab doctor"
MOST_CHECKPOINTS = 20


def orphans(place: Place) -> Iterator[Finding]:
    """End, or name, runs whose process on this machine is gone; what they have logged and kept stays."""
    store = _store(place)
    if store is None:
        yield Finding("runs", "none yet")
        return
    running = _search(store, "attributes.status = 'RUNNING'")
    gone = [run for run in running if _is_gone(run)]
    at_work = {run.tags.get(PARENT_RUN_TAG) for run in running if run not in gone}
    gone = [run for run in gone if run.run_id not in at_work]  # another machine may drive the same study
    yield from (_end(store, run) if place.fix else _name(run) for run in gone)
    if not gone:
        elsewhere = sum(not is_here(run.tags) for run in running)
        beyond = f", of which {elsewhere} are of other machines and cannot be seen from here" if elsewhere else ""
        yield Finding("runs", f"{len(running)} are RUNNING{beyond}; none without its process")


def unsent(place: Place) -> Iterator[Finding]:
    """Runs of which something waits on this machine's disk, though nobody is at them who would send it."""
    waiting = [box for box in outbox.waiting(place.given) if not is_here(box.process) or not is_alive(box.process)]
    for box in waiting:
        yield todo("unsent", f"{box.run_id}: {box.uri} does not have all of it; litlab sync sends it")
    if not waiting:
        yield Finding("unsent", "the stores have all runs of this machine that have ended")


def checkpoints(place: Place) -> list[Path]:
    """Checkpoints of fits that are not finished and are not under way, the latest first: what `litlab resume` needs."""
    store = _store(place)
    if store is None:
        return []
    unfinished = [run for run in _search(store, "attributes.status != 'FINISHED'") if _can_go_on(run)]
    folders = [local_path(run.artifact_uri) for run in unfinished if not is_alive(run.tags)]
    return [path for folder in folders if folder for path in sorted(folder.glob("checkpoints/*.ckpt"))][
        :MOST_CHECKPOINTS
    ]


def _store(place: Place) -> Store | None:
    """Where runs are kept; None if there is no database yet, and none shall be made."""
    if place.database is not None and not place.database.exists():
        return None
    return Store(place.given)


def _search(store: Store, wanted: str) -> list[StoredRun]:
    experiments: Sequence[str] = [str(one.experiment_id) for one in store.client.search_experiments()]
    return store.search(experiments, wanted, ["attributes.start_time DESC"])


def _is_gone(run: StoredRun) -> bool:
    """Whether it is sure that nobody is at a run: it says whose it is, and that process of this machine has ended."""
    return PROCESS_TAG in run.tags and is_here(run.tags) and not is_alive(run.tags)


def _can_go_on(run: StoredRun) -> bool:
    """Whether `litlab resume` takes it, rather than the command that looks after several."""
    own = run.tags.get(SOURCE_NAME_TAG, "").startswith("litlab fit")
    return own and not {PARENT_TAG, PARENT_RUN_TAG} & set(run.tags)


def _advice(run: StoredRun) -> str:
    if _can_go_on(run):
        return f"litlab resume {run.run_id} goes on with it"
    return f"to go on, the same command: {run.tags.get(COMMAND_TAG, 'the one that made it')}"


def _name(run: StoredRun) -> Finding:
    said = f"{run.run_id} says RUNNING, but its process is gone: litlab doctor --fix ends it as KILLED; {_advice(run)}"
    return todo("runs", said)


def _end(store: Store, run: StoredRun) -> Finding:
    again = store.find(run.run_id)  # somebody may have gone on with it meanwhile
    if again.status != "RUNNING" or not _is_gone(again):
        return Finding("runs", f"{run.run_id} is looked after again")
    if store.end(run.run_id, "KILLED", REASON):
        return Finding("runs", f"{run.run_id}, whose process was gone, is KILLED now; {_advice(run)}", "fixed")
    return todo("runs", f"{run.run_id} says RUNNING, but its process is gone, and the store does not take its end")

"""Check for runs that are marked RUNNING although their process is gone, and for what was not sent to the server."""

from collections.abc import Iterator

from pipelines.diagnostics.check import CheckResult, Context, failed
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import redact_credentials
from pipelines.tracking import run_log
from pipelines.tracking.deleted import RunDeletedError
from pipelines.tracking.origin import is_alive, is_here
from pipelines.tracking.run_log import RunLog
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import COMMAND_TAG, PARENT_RUN_TAG, PROCESS_TAG
from pipelines.training.resumable import is_single_fit

REASON = "its process was gone; ended by litlab doctor"


def check_orphans(context: Context) -> Iterator[CheckResult]:
    """End, or list, runs whose process on this machine is gone. What they have logged and saved stays."""
    store = context.open_store()
    if store is None:
        yield CheckResult("runs", "none yet")
        return
    running = store.search(list(store.experiment_names()), "attributes.status = 'RUNNING'")
    gone = [run for run in running if _is_gone(run)]
    active_parents = {run.tags.get(PARENT_RUN_TAG) for run in running if run not in gone}
    gone = [run for run in gone if run.run_id not in active_parents]  # another machine may drive the same study
    yield from (_end(store, run) if context.fix else _report(run) for run in gone)
    if not gone:
        elsewhere = sum(not is_here(run.tags) for run in running)
        beyond = f", of which {elsewhere} are on other machines and cannot be checked from here" if elsewhere else ""
        yield CheckResult("runs", f"{len(running)} are RUNNING{beyond}; none without its process")


def check_unsent(context: Context) -> Iterator[CheckResult]:
    """Check for data of ended runs that wait on this machine's disk to be sent to the tracking store."""
    waiting = [
        log
        for log in run_log.unsent_logs(context.tracking_uri)
        if not is_here(log.process) or not is_alive(log.process)
    ]
    for log in waiting:
        yield _unsent(log, context)
    if not waiting:
        yield CheckResult("unsent", "the tracking stores have all data of this machine's ended runs")


def _unsent(log: RunLog, context: Context) -> CheckResult:
    if redact_credentials(context.uri) == log.uri and (store := context.open_store()):
        try:
            store.find(log.run_id)
        except RunDeletedError as error:
            return CheckResult("unsent", str(error))
        except UserError as error:
            return failed("unsent", str(error))
    return failed("unsent", f"{log.run_id}: {log.uri} does not have all of its data: litlab sync sends it")


def _is_gone(run: StoredRun) -> bool:
    """Return whether a run recorded its process, and that process, of this machine, has ended."""
    return PROCESS_TAG in run.tags and is_here(run.tags) and not is_alive(run.tags)


def _advice(run: StoredRun) -> str:
    if is_single_fit(run):
        return f"to continue: litlab resume {run.run_id}"
    return f"to continue, run the same command again: {run.tags.get(COMMAND_TAG, 'the one that created it')}"


def _report(run: StoredRun) -> CheckResult:
    status = f"{run.run_id} is marked RUNNING, but its process is gone"
    return failed("runs", f"{status}: litlab doctor --fix ends it as KILLED; {_advice(run)}")


def _end(store: Store, run: StoredRun) -> CheckResult:
    current = store.find(run.run_id)  # another process may have resumed it meanwhile
    if current.status != "RUNNING" or not _is_gone(current):
        return CheckResult("runs", f"{run.run_id} has been resumed")
    if store.end(run.run_id, "KILLED", REASON):
        return CheckResult("runs", f"{run.run_id}, whose process was gone, is now KILLED; {_advice(run)}", "fixed")
    return failed(
        "runs", f"{run.run_id} is marked RUNNING, but its process is gone; the tracking store refuses the change"
    )

"""Set a run that has ended RUNNING again."""

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import first_line
from pipelines.tracking import run_log
from pipelines.tracking.artifacts import check_own_artifacts
from pipelines.tracking.origin import process_tags
from pipelines.tracking.run_log import RunLog
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import REASON_TAG, STOP_TAG


def reopened_log(found: StoredRun) -> RunLog:
    """Set a run RUNNING, as one of this process, and return its log. See `Run.reopen`."""
    from mlflow.exceptions import MlflowException

    client = found.store.client
    check_own_artifacts(found.artifact_uri, found.store.uri)
    try:
        known = client.get_run(found.run_id)
        home = run_log.home_of(found.store.uri, found.run_id)
        log = RunLog.load(home) or RunLog.new(found.store.uri, known.info, home)
        log.move_to(found.store.uri)
        with log.held():
            log.fetch(client)
            log.process, log.status, log.reason, log.model_epoch = process_tags(), "", "", None
            log.params = {**log.params, **known.data.params}
            log.save()
        for key, value in log.process.items():  # first: the process of a RUNNING run is checked
            client.set_tag(found.run_id, key, value)
        client.update_run(found.run_id, status="RUNNING")
        for tag in known.data.tags.keys() & {REASON_TAG, STOP_TAG}:  # from its previous end
            client.delete_tag(found.run_id, tag)
    except (MlflowException, OSError) as error:
        raise UserError(f"run {found.run_id} cannot be continued now: {first_line(error)}") from error
    return log

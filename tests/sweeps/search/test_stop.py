"""`litlab stop` ends a study, and several seeds, as Ctrl-C does; the same command continues."""

import threading
import time

import pytest

from pipelines.tracking import stop_tag
from pipelines.tracking.store import Store
from pipelines.tracking.tags import COMMAND_TAG, PARENT_RUN_TAG, REASON_TAG, STOP_TAG
from pipelines.training.stop import request_stop


def runs(status=""):
    store = Store()
    condition = f"attributes.status = '{status}'" if status else ""
    return store.search(list(store.experiment_names()), condition)


@pytest.fixture
def stops(monkeypatch):
    """Return a function that asks a run to stop once a run below it trains; the writers look often."""
    monkeypatch.setattr(stop_tag, "LOOK_EVERY_S", 0.2)

    def start(name):
        def ask():
            end = time.monotonic() + 120
            while not any(PARENT_RUN_TAG in run.tags for run in runs("RUNNING")):
                assert time.monotonic() < end
                time.sleep(0.1)
            request_stop(name)

        thread = threading.Thread(target=ask)
        thread.start()
        return thread

    return start


@pytest.mark.parametrize("kind", [pytest.param("study", marks=pytest.mark.slow), "seeds"])
@pytest.mark.usefixtures("tables")
def test_a_tag_stops_all_trainings_below_a_run_and_the_same_command_continues(litlab, moody, tmp_path, stops, kind):
    space = moody({"model.slow": [0.1, 0.101]})
    seeds = ["fit", tmp_path / "moody.yaml", "--seeds", "2", "--model.slow", "0.1"]
    command = ["sweep", "-c", space] if kind == "study" else seeds
    thread = stops("study" if kind == "study" else "moody")
    told = tmp_path / "told"
    limits = ["--trainer.max_epochs", "1000", "--trainer.max_steps", "200"]
    stopped = litlab(*command, *limits, "--notify", f"env > {told}")
    thread.join()
    assert stopped.code == 130, stopped.err
    assert "Run the same command again to continue." in stopped.err
    assert not runs("RUNNING")
    (parent,) = [run for run in runs("KILLED") if PARENT_RUN_TAG not in run.tags]
    assert parent.tags[REASON_TAG] == "stopped by litlab stop"
    assert STOP_TAG not in parent.tags
    facts = told.read_text().splitlines()
    assert {f"LITLAB_RUN_ID={parent.run_id}", "LITLAB_STATUS=KILLED", "LITLAB_REASON=stopped by litlab stop"} <= {
        *facts
    }
    assert "notify" not in parent.tags[COMMAND_TAG]
    asked = litlab("stop", parent.run_id)
    assert (asked.code, "is KILLED, not running. To continue it: litlab" in asked.err) == (2, True)

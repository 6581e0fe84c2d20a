"""`litlab stop`, and the tag that it sets: the run ends as after Ctrl-C, and continues with the usual command."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.runtime.errors import UserError
from pipelines.tracking import stop_tag
from pipelines.tracking.existing import existing_store
from pipelines.tracking.run import Run
from pipelines.tracking.run_names import find_run
from pipelines.tracking.store import Store
from pipelines.tracking.tags import (
    COMMAND_TAG,
    PARENT_RUN_TAG,
    PARENT_TAG,
    PROCESS_TAG,
    REASON_TAG,
    SOURCE_NAME_TAG,
    STOP_TAG,
)
from pipelines.training.stop import request_stop

ROOT = Path(__file__).parents[3]
CALLBACK = """
import os, time
from lightning.pytorch import Callback
from pipelines.tracking.store import Store

class SetsTag(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        time.sleep(0.02)
        if trainer.current_epoch == 2 and os.environ.pop("ASK", ""):
            Store().client.set_tag(trainer.logger.run_id, "litlab.stop", "please")  # as in the UI
"""
SMALL = ["fit", "digits-mlp", "--data.n_train", "200", "--trainer.enable_progress_bar", "false"]


@pytest.fixture
def asks(tmp_path, monkeypatch):
    """Arguments of a fit whose run gets the tag after two epochs, and a writer that looks for it often."""
    (tmp_path / "asking.py").write_text(CALLBACK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ASK", "1")
    monkeypatch.setattr(stop_tag, "LOOK_EVERY_S", 0.05)
    return [*SMALL, "--trainer.max_epochs", "60", "--trainer.callbacks", "asking.SetsTag"]


def test_a_tag_stops_a_run_which_then_resumes_to_its_end(litlab, asks):
    stopped = litlab(*asks)
    assert stopped.code == 130, stopped.err
    assert "the run is asked to stop" in stopped.err
    (run,) = Store().search(["1"], "")
    assert (run.status, run.tags[REASON_TAG]) == ("KILLED", "stopped by litlab stop")
    assert STOP_TAG not in run.tags
    assert f"To continue: litlab resume {run.run_id}" in stopped.err
    refused = litlab("stop", run.run_id)
    assert (refused.code, refused.err) == (
        2,
        f"litlab: run {run.run_id} is KILLED, not running. To continue it: litlab resume {run.run_id}\n",
    )
    Store().client.set_tag(run.run_id, STOP_TAG, "too late")  # in the UI, after its end
    resumed = litlab("resume", run.run_id)
    assert resumed.code == 0, resumed.err
    ended = Store().find(run.run_id)
    assert (ended.status, ended.metrics["fit_seconds"] > 0, STOP_TAG in ended.tags) == ("FINISHED", True, False)
    assert litlab("stop", run.run_id).err == f"litlab: run {run.run_id} is FINISHED, not running\n"


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_another_shell_stops_a_fit_whose_writer_is_a_process(uri, ranks):
    """Takes as long as a writer waits between two looks, which is part of the claim."""
    devices = ["--trainer.devices", "2", "--trainer.strategy", "ddp"] if ranks > 1 else []
    command = [sys.executable, "-m", "litlab", *SMALL, *devices, "--trainer.accelerator", "cpu"]
    command += ["--trainer.max_epochs", "100000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        deadline, asked = time.monotonic() + 120, None
        while asked is None and time.monotonic() < deadline:
            time.sleep(0.2)
            with contextlib.suppress(UserError):  # while there is no run
                has_epoch = "val/acc" in find_run(existing_store(None), "latest", any_status=True).metrics
                asked = request_stop("digits-mlp") if has_epoch else None
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert asked is not None
    assert process.returncode == 130, errors
    run = Store().find(asked.run.run_id)
    assert (run.status, run.tags[REASON_TAG], STOP_TAG in run.tags) == ("KILLED", "stopped by litlab stop", False)
    assert (run.folder / "checkpoints/last.ckpt").is_file()
    assert asked.continuing == f"litlab resume {run.run_id}"


@pytest.mark.usefixtures("tables")
def test_a_run_that_cannot_be_stopped_is_explained(litlab):
    runs = []

    def new_run(name, **tags):
        runs.append(Run(Store(), "an experiment", name, tags))
        return runs[-1].run_id

    dead = new_run("dead", **{PROCESS_TAG: "1:0", SOURCE_NAME_TAG: "litlab fit x"})
    parent = new_run("parent", **{PARENT_TAG: "seeds", COMMAND_TAG: "litlab fit x --seeds 2"})
    child = new_run("child", **{PARENT_RUN_TAG: parent})
    messages = {
        dead: f"run {dead} is marked RUNNING, but its process is gone. To continue it: litlab resume {dead}",
        child: f"run {child} is part of another run. To stop that: litlab stop {parent}",
        "an experiment": f"2 runs of an experiment are RUNNING; name one:\n  {parent}",
        "an exprment": "'an exprment' is not an experiment, study or run",
    }
    for name, message in messages.items():
        outcome = litlab("stop", name)
        assert (outcome.code, message in outcome.err) == (2, True), outcome.err
    for word in ("", " again"):
        asked = litlab("stop", "parent")
        assert (asked.code, f"run {parent} is asked{word} to stop" in asked.out) == (0, True)
    assert asked.out.endswith("To continue it then: litlab fit x --seeds 2\n")
    for run in runs:  # else this process would be asked to stop in a later test
        run.finish("KILLED")


@pytest.mark.usefixtures("tables")
def test_a_run_below_another_one_does_not_look_for_its_own_tag(monkeypatch):
    monkeypatch.setattr(stop_tag, "LOOK_EVERY_S", 0.0)
    run = Run(Store(), "an experiment", "child", {PARENT_RUN_TAG: "0" * 32, STOP_TAG: "x"})
    watched = stop_tag.StopTag(run.store, run._log.home)
    assert (watched.is_new(), watched.next_look) == (False, None)
    run.finish("FINISHED")
    assert not run.stop_requested

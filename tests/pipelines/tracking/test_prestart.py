"""What is done for an early first step: another process creates the run; large imports are not looked through."""

import gc
import os
import subprocess
import sys

import pytest
from mlflow import MlflowClient

from pipelines.runtime.environment import cpu_count
from pipelines.runtime.gc_pause import gc_paused_for_import
from pipelines.tracking.tags import PROCESS_TAG

# Nothing is sent before the end: on a busy machine a second is over before the first step.
FIT = (
    "import sys; from pipelines import cli; from pipelines.tracking import run; "
    "run.OPEN_AFTER_S = 600; sys.exit(cli.main())"
)
CREATE = """
import os, signal, sys
from pipelines.tracking import prestart as ahead
from pipelines.tracking.store import Store

ahead.start(["digits-mlp"])
((helper, _),) = ahead._HELPERS
if sys.argv[2:]:
    os.kill(helper.pid, signal.SIGKILL)
    helper.join()
try:
    print(ahead.create_run(Store(opened=False), sys.argv[1], "a run", {}).run_id, "mlflow" in sys.modules)
except Exception as error:
    print(type(error).__name__, error)
"""
CALLBACK = """
import os, sys
from lightning.pytorch import Callback

class Tell(Callback):
    def on_train_start(self, trainer, module):
        children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
        print(f"mlflow imported: {'mlflow' in sys.modules}; children: {children}; pid: {os.getpid()}", file=sys.stderr)
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux" or cpu_count() < 2, reason="on one core it would gain nothing")


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Runs a program with arguments in a process of its own."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    (tmp_path / "tell.py").write_text(CALLBACK)

    def run(program, *args):
        command = [sys.executable, "-c", program, *args]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    return run


def runs(uri):
    client = MlflowClient(uri)
    return client.search_runs([one.experiment_id for one in client.search_experiments()])


def test_a_fit_has_its_run_at_the_first_step_and_has_not_imported_mlflow(python, uri):
    options = "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.callbacks=tell.Tell"
    done = python(FIT, "fit", "digits-mlp", *options)
    assert done.returncode == 0, done.stderr
    said = next(line for line in done.stderr.splitlines() if line.startswith("mlflow imported"))
    before, pid = said.split("; pid: ")
    assert before == "mlflow imported: False; children: []"
    (run,) = runs(uri)
    assert run.info.status == "FINISHED"
    assert run.data.params["model.dropout"]
    assert run.data.tags[PROCESS_TAG].startswith(f"{pid}:")


def test_who_makes_no_run_does_not_keep_the_process_that_would_create_it(python, uri):
    options = "--trainer.fast_dev_run=true", "--trainer.accelerator=cpu", "--trainer.callbacks=tell.Tell"
    done = python(FIT, "fit", "digits-mlp", *options)
    assert "children: []" in done.stderr
    assert not runs(uri)


def test_a_run_is_created_all_the_same_and_once_if_that_process_is_killed(python, uri):
    done = python(CREATE, "an experiment", "kill")
    assert done.stdout.split() == [runs(uri)[0].info.run_id, "True"], done.stderr
    assert len(runs(uri)) == 1


def test_what_the_store_refuses_is_said_as_if_it_had_been_asked_here(python):
    done = python(CREATE, "an/experiment")
    assert done.stdout.startswith("UserError name 'an/experiment': only letters"), done.stderr


def test_a_mistake_in_the_configuration_leaves_nothing_behind(python, tmp_path):
    done = python(FIT, "fit", "digits-mlp", "--model.dropout", "7")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_the_garbage_collector_rests_while_something_is_imported_for_the_first_time():
    with gc_paused_for_import("pytest"):
        assert gc.isenabled()
    with gc_paused_for_import("a_module_that_has_not_been_imported"):
        assert not gc.isenabled()
    assert gc.isenabled()

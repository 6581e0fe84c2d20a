"""A helper process creates the run of `litlab fit` while this process imports torch."""

import os
import subprocess
import sys

import pytest
from mlflow import MlflowClient

from pipelines.runtime.environment import cpu_count
from pipelines.tracking.tags import PROCESS_TAG

# Nothing is sent before the end: on a busy machine OPEN_AFTER_S could pass before the first step.
FIT = (
    "import sys; from pipelines import cli; from pipelines.tracking import run; "
    "run.OPEN_AFTER_S = 600; sys.exit(cli.main())"
)
CREATE = """
import os, signal, sys
from pipelines.tracking import prestart
from pipelines.tracking.store import Store

prestart.start(["digits-mlp"])
((helper, _),) = prestart._HELPERS
if sys.argv[2:]:
    os.kill(helper.pid, signal.SIGKILL)
    helper.join()
try:
    print(prestart.create_run(Store(opened=False), sys.argv[1], "a run", {}).run_id, "mlflow" in sys.modules)
except Exception as error:
    print(type(error).__name__, error)
"""
CALLBACK = """
import os, sys
from lightning.pytorch import Callback

class PrintState(Callback):
    def on_train_start(self, trainer, module):
        children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
        print(f"mlflow imported: {'mlflow' in sys.modules}; children: {children}; pid: {os.getpid()}", file=sys.stderr)
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux" or cpu_count() < 2, reason="not used on a single core")


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Return a function that runs a program with arguments in a new process."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    (tmp_path / "print_state.py").write_text(CALLBACK)

    def run(program, *args):
        command = [sys.executable, "-c", program, *args]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    return run


def runs(uri):
    client = MlflowClient(uri)
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def test_a_fit_reaches_its_first_step_with_a_run_and_without_importing_mlflow(python, uri):
    options = "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.callbacks=print_state.PrintState"
    done = python(FIT, "fit", "digits-mlp", *options)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stderr.splitlines() if line.startswith("mlflow imported"))
    state, pid = line.split("; pid: ")
    assert state == "mlflow imported: False; children: []"
    (run,) = runs(uri)
    assert run.info.status == "FINISHED"
    assert run.data.params["model.dropout"]
    assert run.data.tags[PROCESS_TAG].startswith(f"{pid}:")


def test_the_helper_process_ends_if_no_run_is_created(python, uri):
    options = "--trainer.fast_dev_run=true", "--trainer.accelerator=cpu", "--trainer.callbacks=print_state.PrintState"
    done = python(FIT, "fit", "digits-mlp", *options)
    assert "children: []" in done.stderr
    assert not runs(uri)


def test_a_run_is_created_once_if_the_helper_process_is_killed(python, uri):
    done = python(CREATE, "an experiment", "kill")
    assert done.stdout.split() == [runs(uri)[0].info.run_id, "True"], done.stderr
    assert len(runs(uri)) == 1


def test_an_error_in_the_helper_process_is_raised_in_this_process(python):
    done = python(CREATE, "an/experiment")
    assert done.stdout.startswith("UserError name 'an/experiment': only letters"), done.stderr


def test_an_invalid_configuration_leaves_nothing_behind(python, tmp_path):
    done = python(FIT, "fit", "digits-mlp", "--model.dropout", "7")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()

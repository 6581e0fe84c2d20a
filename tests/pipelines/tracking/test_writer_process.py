"""A process of its own creates and writes the run of `litlab fit`."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.tracking.tags import PROCESS_TAG

FIT = """
import sys
from pipelines import cli

code = cli.main()
print("mlflow imported:", "mlflow" in sys.modules)
sys.exit(code)
"""
CREATE = """
import os, signal, sys
from pipelines.tracking import writer_process
from pipelines.tracking.endings import recorded
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store

writer_process.start(["digits-mlp"])
if sys.argv[2:]:
    os.kill(writer_process._STARTED[0].pid, signal.SIGKILL)
try:
    with recorded(Run(Store(opened=False), sys.argv[1], "a run", {})) as run:
        run.log_metrics({"val/acc": 0.5}, 0)
    print(run.run_id, run.complete)
except Exception as error:
    print(type(error).__name__, error)
"""
CALLBACK = """
import os, signal, sqlite3, sys, time
from pathlib import Path
from lightning.pytorch import Callback
from pipelines.tracking import run

def children():
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in listed if not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"git")]

class PrintState(Callback):
    def on_train_start(self, trainer, module):
        print(f"mlflow imported: {'mlflow' in sys.modules}; pid: {os.getpid()}", file=sys.stderr)

class KillWriter(Callback):
    def on_train_epoch_start(self, trainer, module):
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        time.sleep(1)

class KillOnce(Callback):
    def on_train_epoch_start(self, trainer, module):
        run.SEND_EVERY_S = 0.0
        if trainer.current_epoch == 2:
            store = sqlite3.connect(os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///"))
            while not store.execute("SELECT * FROM metrics WHERE key = 'val/loss'").fetchall():
                time.sleep(0.1)
            print(f"writers: {children()}", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
"""
Outcome = namedtuple("Outcome", ["code", "out", "err"])
ONE_EPOCH = ("--trainer.max_epochs=1", "--trainer.accelerator=cpu")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture
def python(tmp_path, tables, run_python, monkeypatch):
    """Return a function that runs a program with arguments in another process, for which Python starts anew or not."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    (tmp_path / "callbacks.py").write_text(CALLBACK)

    def run(program, *args, fresh=False):
        if not fresh:
            return run_python(program, *args, cwd=tmp_path)
        command = [sys.executable, "-c", program, *args]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


def runs(uri):
    client = MlflowClient(uri)
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


@pytest.mark.slow
def test_a_fit_ends_with_a_complete_run_and_a_model_without_importing_mlflow(python, uri):
    done = python(FIT, "fit", "digits-mlp", *ONE_EPOCH, "--trainer.callbacks=callbacks.PrintState", fresh=True)
    assert done.code == 0, done.err
    assert "mlflow imported: False" in done.out
    (run,) = runs(uri)
    assert run.info.status == "FINISHED"
    assert run.data.params["model.dropout"]
    pid = re.search(r"pid: (\d+)", done.err)[1]
    assert run.data.tags[PROCESS_TAG].startswith(f"{pid}:"), "the process that trains, not the one that writes"
    assert run.outputs.model_outputs


@linux
def test_a_writer_that_is_killed_is_started_again_and_nothing_is_lost_or_stored_twice(python, uri, tmp_path):
    options = "--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--trainer.callbacks=callbacks.KillWriter"
    done = python(FIT, "fit", "digits-mlp", *options)
    assert done.code == 0, done.err
    (run,) = runs(uri)
    assert run.info.status == "FINISHED"
    history = MlflowClient(uri).get_metric_history(run.info.run_id, "val/loss")
    assert [point.step for point in history] == [0, 1]
    assert not list((tmp_path / "unsent").iterdir())


@linux
def test_the_writer_ends_with_a_training_that_is_killed(python, uri):
    done = python(FIT, "fit", "digits-mlp", "--trainer.accelerator=cpu", "--trainer.callbacks=callbacks.KillOnce")
    assert done.code == -signal.SIGKILL
    (pid,) = re.findall(r"\d+", re.search(r"writers: (.*)", done.err)[1])
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()
    (run,) = runs(uri)
    assert run.info.status == "RUNNING", "as before the writer was a process: `litlab resume` and `sync` end it"
    assert run.data.metrics["val/loss"]


def test_the_writer_is_not_needed_without_a_run(python, uri, tmp_path):
    done = python(FIT, "fit", "digits-mlp", *ONE_EPOCH, "--trainer.fast_dev_run=true")
    assert done.code == 0, done.err
    assert not runs(uri)


@pytest.mark.parametrize("how", [(), ("kill",)], ids=["", "killed"])
def test_a_run_is_created_once_even_if_the_process_is_killed_before(python, uri, how):
    done = python(CREATE, "an experiment", *how)
    (run,) = runs(uri)
    assert done.out.split() == [run.info.run_id, "True"], done.err
    assert run.data.metrics == {"val/acc": 0.5}


def test_an_error_at_the_creation_is_raised_in_the_training_process(python):
    done = python(CREATE, "an/experiment")
    assert done.out.startswith("UserError name 'an/experiment': only letters"), done.err


def test_modules_of_the_working_folder_do_not_replace_those_of_the_writer(python, uri, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "queue.py").write_text("raise SystemExit('imported from the working folder')")
    program = f"import os, sys; sys.path.pop(0); os.chdir({str(tmp_path / 'work')!r})\n{CREATE}"
    done = python(program, "an experiment", fresh=True)
    assert done.out.split()[1:] == ["True"], done.err


def test_an_invalid_configuration_leaves_nothing_behind(python, tmp_path):
    done = python(FIT, "fit", "digits-mlp", "--model.dropout", "7")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mlflow.db"]

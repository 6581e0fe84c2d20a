"""Runs that do not end well: status, exit code, and what is left."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

ENDLESS = ["digits-mlp", "--trainer.max_epochs", "100000"]


def start(uri, *args):
    """`litlab fit` in a process of its own, once it has reported three epochs."""
    program = "import sys; from pipelines.cli import main; sys.exit(main())"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", program, "fit", *args]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(3):
        assert process.stdout.readline().startswith("epoch")
    return process


def only_run(uri):
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("digits-mlp").experiment_id])
    return client, run


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_fit_is_killed_and_keeps_what_it_had_logged(uri, number, code):
    process = start(uri, *ENDLESS)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    client, run = only_run(uri)
    assert process.returncode == code
    assert run.info.status == "KILLED"
    assert run.info.end_time is not None
    assert f"run {run.info.run_id} is KILLED" in err
    assert "Traceback" not in err
    history = client.get_metric_history(run.info.run_id, "val/acc")
    assert [point.step for point in history] == list(range(len(history)))
    assert len(history) >= 3
    assert "test/acc" not in run.data.metrics, "the test set stays closed"
    assert (Path(run.info.artifact_uri) / "checkpoints/last.ckpt").is_file()


def test_a_fit_killed_outright_leaves_a_consistent_database(litlab, uri):
    process = start(uri, *ENDLESS)
    process.kill()
    process.communicate(timeout=60)
    database = sqlite3.connect(uri.removeprefix("sqlite:///"))
    assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    database.close()
    _, run = only_run(uri)
    lines = (Path(run.info.artifact_uri) / "metrics.jsonl").read_text().splitlines()
    assert len(lines) >= 6, "what the store had not been sent yet is in the run's folder"
    assert litlab("fit", "digits-mlp", "--trainer.max_epochs", "1").code == 0


def test_a_loss_that_is_no_number_fails_the_run_and_says_so(litlab, uri):
    outcome = litlab("fit", "digits-mlp", "--model.optimizer.lr", "1e30", "--trainer.max_epochs", "3")
    _, run = only_run(uri)
    assert outcome.code == 1
    assert "the training loss is" in outcome.err
    assert "try a smaller learning rate" in outcome.err
    assert "Traceback" not in outcome.err
    assert run.info.status == "FAILED"
    assert run.data.tags["litlab.reason"].startswith("FloatingPointError")


def test_a_crash_fails_the_run_with_its_reason(litlab, uri, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from lightning.pytorch import Callback\n"
        "class Crash(Callback):\n"
        "    def on_train_epoch_start(self, trainer, pl_module):\n"
        "        if trainer.current_epoch == 1:\n"
        "            raise RuntimeError('out of luck')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    outcome = litlab("fit", "digits-mlp", "--trainer.callbacks+=mine.Crash")
    client, run = only_run(uri)
    assert outcome.code == 1
    assert "out of luck" in outcome.err
    assert run.info.status == "FAILED"
    assert run.data.tags["litlab.reason"] == "RuntimeError: out of luck"
    assert len(client.get_metric_history(run.info.run_id, "val/acc")) == 1


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-10]), "truncated"),
        (lambda path: path.write_bytes(b"\x1f\x8b" + path.read_bytes()[2:]), "magic number"),
    ],
    ids=["missing", "truncated", "wrong magic"],
)
def test_damaged_data_are_named_before_anything_is_written(litlab, mnist_format, tmp_path, monkeypatch, damage, says):
    import shutil

    import torchvision

    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])  # nobody answers
    folder = tmp_path / "data"
    shutil.copytree(mnist_format, folder)
    damage(folder / "MNIST/raw/t10k-images-idx3-ubyte")
    outcome = litlab("fit", "mnist-linear", "--data.data_dir", folder, "--data.verify", "false", "--data.n_val", "200")
    assert outcome.code == 2
    assert "t10k-images-idx3-ubyte" in outcome.err
    assert says in outcome.err
    assert not (tmp_path / "runs").exists()


def test_two_processes_train_one_model_in_one_run(uri):
    """Lightning's launcher starts the command once more for the second process."""
    program = "import sys; from pipelines.cli import main; sys.exit(main())"
    args = ["fit", "digits-mlp", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"]
    args += ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    script = Path(uri.removeprefix("sqlite:///")).parent.parent / "litlab.py"
    script.write_text(program)
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    done = subprocess.run([sys.executable, script, *args], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    client, run = only_run(uri)
    assert run.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/acc")] == [0, 1]
    assert (run.data.metrics["test/acc"] * 360) % 1 == pytest.approx(0, abs=1e-3), "each test image counts once"

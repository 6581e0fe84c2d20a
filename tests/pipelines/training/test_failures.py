"""Runs that fail or are stopped: status, exit code, and what is kept."""

import os
import signal
import sqlite3
import subprocess
import sys
from itertools import islice
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch
from mlflow import MlflowClient

from pipelines.training.failures import RunFailedError
from pipelines.training.fit import fit

ENDLESS = ["digits-mlp", "--trainer.max_epochs", "100000"]


@pytest.fixture
def start(start_litlab, uri, tables):
    """Start `litlab fit` in another process, and return once it has printed three epochs."""

    def run(*args):
        environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONUNBUFFERED": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = start_litlab("fit", *args, env=environment, **pipes)
        lines = iter(process.stdout.readline, "")
        epochs = list(islice((line for line in lines if line.startswith("epoch ")), 3))
        assert len(epochs) == 3
        return process

    return run


def only_run(uri):
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("digits-mlp").experiment_id])
    return client, run


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_fit_is_killed_and_keeps_logged_metrics(uri, start, number, code):
    process = start(*ENDLESS)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    client, run = only_run(uri)
    assert process.returncode == code
    assert run.info.status == "KILLED"
    assert run.info.end_time is not None
    assert f"Run {run.info.run_id} is KILLED" in err
    assert "Traceback" not in err
    history = client.get_metric_history(run.info.run_id, "val/acc")
    assert [point.step for point in history] == list(range(len(history)))
    assert len(history) >= 3
    assert "test/acc" not in run.data.metrics, "the test set stays closed"
    assert (Path(urlparse(run.info.artifact_uri).path) / "checkpoints/last.ckpt").is_file()


@pytest.mark.slow
def test_a_fit_killed_with_sigkill_leaves_a_consistent_database(litlab, uri, start):
    process = start(*ENDLESS)
    process.kill()
    process.communicate(timeout=60)
    database = sqlite3.connect(uri.removeprefix("sqlite:///"))
    assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    database.close()
    _, run = only_run(uri)
    lines = (Path(urlparse(run.info.artifact_uri).path) / "metrics.jsonl").read_text().splitlines()
    assert len(lines) >= 6, "what the store had not been sent yet is in the run's folder"
    assert litlab("fit", "digits-mlp", "--trainer.max_epochs", "1").code == 0


def test_a_loss_that_is_not_finite_fails_the_run_with_a_message(litlab, uri):
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


RAISE = """
from lightning.pytorch import Callback

class Raise(Callback):
    error = None

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise self.error
"""


@pytest.fixture
def raising(tmp_path, monkeypatch):
    """Train and raise an error in the second epoch."""
    (tmp_path / "raising.py").write_text(RAISE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "raising", raising=False)
    import raising

    def run(error):
        raising.Raise.error = error
        return fit("digits-mlp", overrides=["--trainer.callbacks+=raising.Raise"])

    return run


def test_a_failed_run_raises_an_error_with_its_cause_and_the_command_that_continues_it(uri, raising):
    cause = RuntimeError("out of luck")
    with pytest.raises(RunFailedError, match="out of luck") as caught:
        raising(cause)
    _, run = only_run(uri)
    assert (caught.value.run_id, run.info.status) == (run.info.run_id, "FAILED")
    assert caught.value.resume_command == f"litlab resume {run.info.run_id}"
    assert caught.value.__cause__ is cause
    assert not caught.value.refused


def test_a_stopped_run_raises_the_interruption_with_notes_how_to_continue(uri, raising):
    with pytest.raises(KeyboardInterrupt) as caught:
        raising(KeyboardInterrupt())
    _, run = only_run(uri)
    assert run.info.status == "KILLED"
    assert f"To continue: litlab resume {run.info.run_id}" in caught.value.__notes__


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-10]), "truncated"),
        (lambda path: path.write_bytes(b"\x1f\x8b" + path.read_bytes()[2:]), "magic number"),
    ],
    ids=["missing", "truncated", "wrong magic"],
)
def test_damaged_data_files_are_named_before_a_run_exists(litlab, mnist_format, tmp_path, monkeypatch, damage, says):
    import shutil

    import torchvision

    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])  # no server answers
    folder = tmp_path / "data"
    shutil.copytree(mnist_format, folder)
    damage(folder / "MNIST/raw/t10k-images-idx3-ubyte")
    outcome = litlab("fit", "mnist-linear", "--data.data_dir", folder, "--data.verify", "false", "--data.n_val", "200")
    assert outcome.code == 2
    assert "t10k-images-idx3-ubyte" in outcome.err
    assert says in outcome.err
    assert not (tmp_path / "runs").exists()


FIRST = """
import os, subprocess, sys, time
from pipelines.runtime import process
process.exit_with_rank_zero()
further = subprocess.Popen([sys.executable, "-c", "import time; from pipelines.runtime import process; "
    "process.exit_with_rank_zero(); print('up', flush=True); time.sleep(60)"], env={**os.environ, "LOCAL_RANK": "1"})
print(further.pid, flush=True)
time.sleep(60)
"""


def test_processes_of_further_devices_end_when_rank_zero_is_killed():
    first = subprocess.Popen([sys.executable, "-c", FIRST], stdout=subprocess.PIPE, text=True)
    lines = {first.stdout.readline().strip() for _ in range(2)}  # the other process's id, and "up"
    assert "up" in lines
    assert first.poll() is None
    first.kill()
    first.communicate(timeout=30)  # until both have closed their pipes


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--model.num_classes", "5"], "model.num_classes is known from the data"),
        (["--seed_everything", "-1"], "-1 is not in bounds"),
        (["--model.optimizer.lr", "-1"], "Invalid learning rate"),
        (["--model.hidden", "[0]"], "model.hidden has an entry below 1"),
        (["--trainer.max_epochs", "0"], "must not be 0"),
        (["--trainer.limit_train_batches", "0"], "must not be 0"),
        (["--checkpoint_every", "often"], "a number of steps, such as 500, or a time"),
        (["--mode", "lowest"], "mode"),
        (["--name", "a#b"], "name 'a#b': only letters"),
    ],
)
def test_settings_that_would_fail_later_are_refused_before_the_run(litlab, uri, args, says):
    outcome = litlab("fit", "digits-mlp", *args)
    assert outcome.code == 2
    assert says in outcome.err
    assert "Traceback" not in outcome.err
    database = Path(uri.removeprefix("sqlite:///"))
    if database.exists():  # the store checks the name
        assert MlflowClient(uri).get_experiment_by_name("digits-mlp") is None


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (
            ["autoencoder", "--data", "datamodules.digits.Digits", "--data.normalization", "standard"],
            "set data.normalization to unit",
        ),
        (["circles", "--trainer.callbacks+=modules.probes.ShiftSensitivity"], "classifiers of images"),
        (["functions-linear", "--model", "modules.mlp.MLP"], "needs data with classes"),
        (["digits-mlp", "--trainer.strategy", "ddp_spawn", "--trainer.devices", "2"], "use ddp"),
        (["digits-mlp", "--trainer.strategy", "deepspeed_stage_2"], "shards the weights, but litlab saves whole ones"),
        (["digits-mlp", "--trainer.strategy", "lightning.pytorch.strategies.FSDPStrategy"], "shards the weights"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused_without_a_traceback(litlab, args, says):
    outcome = litlab("fit", *args, "--trainer.max_epochs", "1")
    assert outcome.code == 2
    assert says in outcome.err
    assert "Traceback" not in outcome.err


def test_a_file_that_is_not_a_database_is_reported(litlab, tmp_path):
    (tmp_path / "notes.db").write_text("not a database, but long enough to have a header of its own" * 10)
    outcome = litlab("fit", "digits-mlp", "--tracking_uri", f"sqlite:///{tmp_path}/notes.db")
    assert outcome.code == 2
    assert "cannot be reached" in outcome.err


def test_an_extra_argument_does_not_replace_the_configuration_of_a_run(litlab):
    run_id = litlab("fit", "digits-mlp", "--trainer.max_epochs", "1").run_id
    outcome = litlab("test", run_id, "digits-convnet")
    assert outcome.code == 2
    assert "unexpected argument 'digits-convnet'" in outcome.err


def test_a_foreign_module_may_log_metric_names_that_mlflow_refuses(litlab, uri, tmp_path, monkeypatch):
    (tmp_path / "plain.py").write_text(
        "import torch\n"
        "from lightning.pytorch import LightningModule\n"
        "class Plain(LightningModule):\n"
        "    def __init__(self, num_classes: int = 10):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.Linear(784, num_classes)\n"
        "    def forward(self, x): return self.layer(x.flatten(1))\n"
        "    def step(self, batch, name):\n"
        "        loss = torch.nn.functional.cross_entropy(self(batch[0]), batch[1])\n"
        "        self.log(name, loss, on_step=False, on_epoch=True)\n"
        "        return {'loss': loss, 'half': 0.5}\n"
        "    def training_step(self, batch, i): return self.step(batch, 'train|loss!')\n"
        "    def validation_step(self, batch, i): return self.step(batch, 'val/loss')\n"
        "    def test_step(self, batch, i): return self.step(batch, 'test/loss')\n"
        "    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=0.1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "plain.yaml").write_text(
        "data: {class_path: datamodules.digits.Digits}\nmodel: {class_path: plain.Plain}\ntrainer: {max_epochs: 2}\n"
    )
    outcome = litlab("fit", "-c", tmp_path / "plain.yaml")
    assert outcome.code == 0, outcome.err
    metrics = MlflowClient(uri).get_run(outcome.run_id).data.metrics
    assert {"train_loss_", "val/loss", "test/loss"} <= metrics.keys()


def test_an_epoch_without_validation_prints_no_old_metrics(litlab):
    outcome = litlab("fit", "digits-mlp", "--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "2")
    epochs = [line for line in outcome.out.splitlines() if line.startswith("epoch")]
    assert ["val/acc" in line for line in epochs] == [False, True, False]


def test_runs_of_two_experiments_have_separate_folders(uri):
    from pipelines.tracking.run import Run
    from pipelines.tracking.store import Store

    first, second = (Run(Store(), name, "a run", {}) for name in ("an experiment", "another.one"))
    assert first.folder != second.folder
    assert first.run_id in first.folder.parts


TROUBLE = """
import subprocess
from pathlib import Path
from lightning.pytorch import Callback

def fill(folder):
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(b"0" * size)
            except OSError:
                pass

def close(folder):
    files = folder / "mlartifacts"
    subprocess.run(["mount", "--bind", files, files], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", files], check=True)

class Trouble(Callback):
    folder, kind = None, None

    def on_train_epoch_start(self, trainer, pl_module):  # the checkpoint of the previous epoch is saved
        if self.folder and trainer.current_epoch == 2:
            {"full": fill, "read-only": close}[self.kind](self.folder)
"""


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("a small disk needs the right to mount one")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("full", "no space left in"),
        pytest.param("read-only", "cannot be written: Read-only file system", marks=pytest.mark.slow),
    ],
)
def test_a_full_or_read_only_disk_fails_the_fit_which_can_be_resumed(
    litlab, small_disk, tmp_path, monkeypatch, kind, says
):
    (tmp_path / "trouble.py").write_text(TROUBLE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "trouble", raising=False)
    monkeypatch.setenv("LITLAB_UNSENT", str(small_disk / "unsent"))
    import trouble

    args = ["fit", "digits-mlp", "--model.dropout", "0.3", "--trainer.max_epochs", "4"]
    args += ["--trainer.callbacks+=trouble.Trouble"]
    whole = litlab(*args)
    trouble.Trouble.folder, trouble.Trouble.kind = small_disk, kind
    there = ["--tracking_uri", f"sqlite:///{small_disk}/mlflow.db"]
    outcome = litlab(*args, *there)
    trouble.Trouble.folder = None
    assert outcome.code == 1
    assert says in outcome.err
    assert str(small_disk) in outcome.err
    assert "Traceback" not in outcome.err
    (folder,) = small_disk.glob("mlartifacts/*/*/artifacts")
    run_id = folder.parent.name
    assert f"litlab resume {run_id}" in outcome.err
    client = MlflowClient(there[1])
    assert client.get_run(run_id).info.status == "FAILED"
    if kind == "full":
        (small_disk / "filler").unlink()
    else:
        subprocess.run(["umount", small_disk / "mlartifacts"], check=True)
    resumed = litlab("resume", run_id, *there)
    assert resumed.code == 0, resumed.err
    assert "Resuming run" in resumed.err
    assert client.get_run(run_id).info.status == "FINISHED"
    (before,) = (tmp_path / "runs").glob(f"mlartifacts/*/{whole.run_id}/artifacts")
    one, other = (torch.load(path / "checkpoints/last.ckpt", weights_only=True) for path in (before, folder))
    assert all(torch.equal(one["state_dict"][key], other["state_dict"][key]) for key in one["state_dict"])


def test_a_folder_that_cannot_be_created_is_named(litlab, uri, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mlartifacts").write_text("in the way")
    outcome = litlab("fit", "digits-mlp")
    _, run = only_run(uri)
    assert outcome.code == 2
    assert str(tmp_path / "runs/mlartifacts") in outcome.err
    assert "Traceback" not in outcome.err
    assert run.info.status == "FAILED"
    outcome = litlab("fit", "digits-mlp", "--tracking_uri", f"sqlite:///{tmp_path}/runs/mlartifacts/mlflow.db")
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert str(tmp_path / "runs/mlartifacts") in outcome.err


@pytest.mark.slow
def test_a_lost_process_ends_the_training_of_all_with_advice(uri, tmp_path):
    script = tmp_path / "program.py"
    script.write_text("import sys; from pipelines.cli import main; sys.exit(main())")
    (tmp_path / "dying.py").write_text(
        "import os, signal\n"
        "from lightning.pytorch import Callback\n"
        "class Dying(Callback):\n"
        "    def on_train_epoch_end(self, trainer, pl_module):\n"
        "        if trainer.global_rank == 1 and trainer.current_epoch == 1:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    args = ["fit", "digits-mlp", "--trainer.max_epochs", "9", "--trainer.accelerator", "cpu"]
    args += ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.callbacks+=dying.Dying"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, script, *args], env=environment, capture_output=True, text=True, check=False)
    client, run = only_run(uri)
    assert done.returncode == 1, done.stderr
    assert run.info.status == "FAILED"
    assert "one of the 2 training processes is gone" in done.stderr
    assert "Traceback" not in done.stderr
    assert f"litlab resume {run.info.run_id}" in done.stderr
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/acc")] == [0]

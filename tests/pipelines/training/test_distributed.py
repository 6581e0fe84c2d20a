"""Training with several processes: they share each batch, and every example counts once."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from modules.convnet import ConvNet
from pipelines.evaluation.predictions import FILE, Predictions

ROOT = Path(__file__).parents[3]
TRAININGS = """
import json, sys
from functools import partial
from pathlib import Path
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from datamodules.digits import Digits
from datamodules.functions import Functions
from datamodules.paired_digits import PairedDigits
from datamodules.sets import TensorSet
from modules.autoencoder import ConvAutoencoder
from modules.convnet import ConvNet
from modules.functions import FunctionRegressor
from modules.linear import LinearClassifier
from modules.mlp import MLP
from modules.norms import SyncBatchNorm
from modules.schedules import OneCycle

class Curves(Callback):
    def __init__(self, name):
        self.path, self.epochs, self.drawn = folder / name, [], []
    def on_train_batch_start(self, trainer, model, batch, batch_idx):
        self.drawn.append(float(batch[0].double().sum()))
    def keep(self, trainer, *args):
        if trainer.callback_metrics:
            self.epochs.append({key: float(value) for key, value in trainer.callback_metrics.items()})
    on_train_epoch_start = keep  # the metrics of the previous epoch are available now
    def on_train_end(self, trainer, model):
        self.keep(trainer)
        torch.save(dict(model.state_dict()), f"{self.path}-{trainer.global_rank}.pt")
        results = {"epochs": self.epochs, "steps": trainer.global_step, "drawn": self.drawn}
        Path(f"{self.path}-{trainer.global_rank}.json").write_text(json.dumps(results))

SGD = partial(torch.optim.SGD, lr=0.02, momentum=0.9)
IMAGES = (1, 28, 28)
CASES = {
    "mlp": lambda: (
        MLP(IMAGES, 10, hidden=(32,), optimizer=SGD, lr_scheduler=OneCycle, label_smoothing=0.1),
        Digits(n_train=241, n_val=251, batch_size=60, evaluate_train=True),
        {},
    ),
    "accumulated and clipped": lambda: (
        MLP(IMAGES, 10, hidden=(32,), optimizer=SGD, loss="quadratic"),
        Digits(n_train=243, n_val=251, batch_size=40),
        {"accumulate_grad_batches": 2, "gradient_clip_val": 0.05},
    ),
    "batch norm": lambda: (
        ConvNet(IMAGES, 10, channels=(4,), hidden=(16,), batch_norm=True, optimizer=partial(SGD, lr=0.01)),
        Digits(n_train=121, n_val=251, batch_size=40),
        {"sync_batchnorm": True, "plugins": [SyncBatchNorm()]},
    ),
    "batch norm of each": lambda: (
        ConvNet(IMAGES, 10, channels=(4,), hidden=(16,), batch_norm=True, optimizer=partial(SGD, lr=0.01)),
        Digits(n_train=121, n_val=251, batch_size=40),
        {},
    ),
    "autoencoder": lambda: (
        ConvAutoencoder(IMAGES, channels=(4,), hidden=(16,)),
        Digits(n_train=121, n_val=101, batch_size=40, normalization="unit"),
        {},
    ),
    "summed": lambda: (
        LinearClassifier(IMAGES, 10, optimizer=partial(SGD, lr=0.00005), reduction="sum"),
        Digits(n_train=241, n_val=101, batch_size=60),
        {},
    ),
    "pairs": lambda: (
        LinearClassifier((1, 56, 28), 19, optimizer=partial(SGD, lr=0.0002)),
        PairedDigits("digits", n_train=241, n_val=101, batch_size=60),
        {},
    ),
    "regression": lambda: (FunctionRegressor((4,)), Functions(n_train=241, n_val=101, batch_size=60), {}),
    "augmented": lambda: (
        MLP(IMAGES, 10, hidden=(8,), dropout=0.5),
        Digits(n_train=241, n_val=101, batch_size=60, crop_padding=3, flip=True),
        {},
    ),
}

def train(name, processes, suffix=""):
    seed_everything(3, verbose=False)
    model, data, options = CASES[name]()
    data.setup("fit")  # in this process: what a forked process sets up is lost
    if name == "augmented":
        image, label = data.train_set.inputs[:1], data.train_set.targets[:1]
        data.train_set = TensorSet(image.expand(241, -1, -1, -1).contiguous(), label.expand(241).contiguous())
    several = {"strategy": "ddp_fork", "devices": processes} if processes > 1 else {"devices": 1}
    Trainer(
        accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[Curves(f"{name}-{processes}{suffix}")],
        **several, **options,
    ).fit(model, data)

folder = Path(sys.argv[1])
for job in json.loads(sys.argv[2]):
    train(*job)
"""
ALIKE = ["mlp", "summed", "accumulated and clipped", "batch norm", "autoencoder", "pairs", "regression"]


@pytest.fixture(scope="module")
def trained(run_python):
    """Run jobs (name, number of processes) and save their results in a folder."""

    def run(folder, jobs):
        done = run_python(TRAININGS, folder, json.dumps(jobs))
        assert done.code == 0, done.err
        return folder

    return run


@pytest.fixture(scope="module")
def one_and_two(trained, tmp_path_factory):
    jobs = [(name, processes) for name in ALIKE for processes in (1, 2)]
    jobs += [("augmented", 2), ("augmented", 2, "-again"), ("batch norm of each", 2)]
    return trained(tmp_path_factory.mktemp("trained"), jobs)


def record(folder, name, rank=0):
    return json.loads((folder / f"{name}-{rank}.json").read_text())


def assert_alike(folder, name, processes):
    alone = record(folder, f"{name}-1")
    for rank in range(processes):
        shared = record(folder, f"{name}-{processes}", rank)
        assert shared["steps"] == alone["steps"]
        assert len(shared["epochs"]) == len(alone["epochs"]) == 3
        for one, other in zip(alone["epochs"], shared["epochs"], strict=True):
            assert one.keys() == other.keys()
            assert other == pytest.approx(one, rel=1e-5, abs=1e-6)
    assert alone["epochs"][-1]["train/loss"] < alone["epochs"][0]["train/loss"]
    weights = [torch.load(folder / f"{name}-{number}-0.pt", weights_only=True) for number in (1, processes)]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_give_the_loss_curve_and_the_weights_of_one(one_and_two, name):
    """Neither batch size nor processes divide the number of examples, and one process has no last example."""
    assert_alike(one_and_two, name, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALIKE)
def test_four_processes_give_the_loss_curve_and_the_weights_of_one(trained, tmp_path, name):
    assert_alike(trained(tmp_path, [(name, 1), (name, 4)]), name, 4)


def test_processes_draw_different_augmentations_and_the_same_seed_repeats_them(one_and_two):
    first, again = ([record(one_and_two, f"augmented-2{suffix}", rank) for rank in (0, 1)] for suffix in ("", "-again"))
    assert first == again
    drawn = [one["drawn"] for one in first]  # sum of pixels at each step, always of the same image
    assert len({*drawn[0], *drawn[1]}) > len(drawn[0]) + 3
    assert not any(mine == other for mine, other in zip(*drawn, strict=True))
    paths = [one_and_two / f"augmented-2{suffix}-{rank}.pt" for suffix in ("", "-again") for rank in (0, 1)]
    reference, *others = (torch.load(path, weights_only=True) for path in paths)
    assert all(torch.equal(reference[key], other[key]) for other in others for key in reference)


def test_batch_norm_statistics_are_those_of_rank_zero_in_validation_and_checkpoints(one_and_two):
    """Each process has its own statistics while it trains; DDP must validate what is saved."""
    first, second = (torch.load(one_and_two / f"batch norm of each-2-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)


PROGRAM = """import os
import signal
import sys
from lightning.pytorch import Callback
from pipelines.cli import main

class Stop(Callback):
    def on_train_batch_end(self, trainer, *args):
        rank, step, number = map(int, os.environ.get("STOP", "-1 -1 -1").split())
        if trainer.global_step == step and rank in (trainer.global_rank, 9):
            os.kill(os.getpid(), number)

if __name__ == "__main__":
    sys.exit(main())
"""
ON_TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]
UNEVEN = ["digits-mlp", "--data.n_train", "225", "--trainer.max_epochs", "3"]  # batches of 32, and a last one of 1
ALL = 9


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A script that runs litlab, which Lightning can start again; it contains a callback that stops a process."""
    path = tmp_path_factory.mktemp("program") / "stopping.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture
def launch(program, uri, tables, free_port):
    """Run `litlab` on two processes: started by Lightning, by torchrun, or separately as SLURM does."""

    def start(by, *args, stop=""):
        path = os.pathsep.join([str(program.parent), str(ROOT)])
        environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": path, "MASTER_PORT": str(free_port())}
        environment |= {"STOP": stop} if stop else {}
        command = [sys.executable, program, *args]
        variables = [{}]
        if by == "torchrun":
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
            command = [*torchrun, "--master_port", environment["MASTER_PORT"], program, *args]
        if by == "slurm":
            job = {"JOB_ID": "7", "JOB_NAME": "job", "NTASKS": "2", "STEP_NUM_TASKS": "2", "NTASKS_PER_NODE": "2"}
            job |= {"NNODES": "1", "NODEID": "0", "NODELIST": "localhost", "JOB_NODELIST": "localhost"}
            variables = [
                {f"SLURM_{key}": value for key, value in {**job, "PROCID": rank, "LOCALID": rank}.items()}
                for rank in ("0", "1")
            ]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes = [subprocess.Popen(command, env={**environment, **own}, **pipes) for own in variables]
        output = [process.communicate(timeout=300) for process in processes]
        return [process.returncode for process in processes], "".join(out + err for out, err in output)

    return start


def only_run(uri):
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("digits-mlp").experiment_id])
    return run, Path(urlparse(run.info.artifact_uri).path)


def curves(folder):
    """Return each metric by name and epoch, and check that each is logged once."""
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    keys = [(key, point["epoch"]) for point in points for key in point if key not in ("epoch", "timestamp")]
    assert len({*keys}) == len(keys)
    values = [value for point in points for key, value in point.items() if key not in ("epoch", "timestamp")]
    return {key: value for key, value in zip(keys, values, strict=True) if key[0] != "fit_seconds"}


def test_processes_draw_different_dropout_and_rank_zero_draws_like_a_single_process():
    model = ConvNet(input_shape=(1, 28, 28), num_classes=10, channels=(4,), hidden=(16,))
    drawn = []
    for rank in (0, 1):
        torch.manual_seed(3)
        model._trainer = type("Trainer", (), {"global_rank": rank})()
        model.on_fit_start()
        drawn.append(torch.rand(4))
    torch.manual_seed(3)
    assert torch.equal(drawn[0], torch.rand(4))
    assert not torch.equal(*drawn)


def test_two_processes_record_one_run_with_the_metrics_of_a_single_process(launch, litlab, uri, tmp_path):
    codes, output = launch("lightning", "fit", *UNEVEN, "--model.dropout", "0", *ON_TWO)
    assert codes == [0], output
    assert output.count("litlab: Batch of 32 over 2 processes: 16 each") == 1
    assert output.count("litlab: Test of 360 examples over 2 processes") == 1
    assert "sync_dist" not in output
    run, folder = only_run(uri)
    assert run.info.status == "FINISHED"
    alone = f"sqlite:///{tmp_path / 'alone' / 'mlflow.db'}"
    assert litlab("fit", *UNEVEN, "--model.dropout", "0", "--tracking_uri", alone).code == 0
    assert curves(folder) == pytest.approx(curves(only_run(alone)[1]), rel=1e-4, abs=1e-6)
    kept, kept_alone = (Predictions.read(place / FILE) for place in (folder, only_run(alone)[1]))
    assert np.array_equal(kept.targets_N, kept_alone.targets_N), "each test example once, in the order of the data"
    assert np.allclose(kept.probabilities_N, kept_alone.probabilities_N, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("by", "stop", "codes", "point"),
    [
        ("lightning", f"0 20 {int(signal.SIGKILL)}", [-signal.SIGKILL], "after epoch 1"),
        ("lightning", f"1 20 {int(signal.SIGKILL)}", [1], "after epoch 1"),
        ("torchrun", f"1 20 {int(signal.SIGKILL)}", [1], "after epoch 1"),
        ("slurm", f"{ALL} 20 {int(signal.SIGTERM)}", [143, 143], "from step 20 of epoch 2"),
    ],
)
def test_a_stopped_run_of_several_processes_resumes_bit_identically(launch, uri, tmp_path, by, stop, codes, point):
    """Every process ends, whichever is stopped; dropout, order and weights are identical to the last bit."""
    arguments = [*UNEVEN, "--trainer.callbacks+=stopping.Stop", *ON_TWO]
    stopped, output = launch(by, "fit", *arguments, stop=stop)
    # Lightning kills the first process if that has not noticed within seconds that another one is gone
    assert stopped == codes or (by, stopped) == ("lightning", [-signal.SIGKILL]), output
    run, folder = only_run(uri)
    resumed, output = launch(by, "resume", run.info.run_id)
    assert set(resumed) == {0}, output
    assert f"Resuming run {run.info.run_id} {point}, from last.ckpt" in output
    whole = f"sqlite:///{tmp_path / 'whole' / 'mlflow.db'}"
    assert launch(by, "fit", *arguments, "--tracking_uri", whole)[0] == resumed
    assert only_run(uri)[0].info.status == "FINISHED"
    assert curves(folder) == curves(only_run(whole)[1])
    ends = [
        torch.load(path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for path in (folder, only_run(whole)[1])
    ]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


@pytest.mark.parametrize(
    ("args", "variables", "says"),
    [
        (["--data.batch_size", "33", *ON_TWO], {}, "data.batch_size is 33, for all processes together; it must be"),
        (
            [],
            {"SLURM_STEP_NUM_TASKS": "4"},
            "4 processes were started, but trainer.devices times",
        ),
    ],
)
def test_settings_that_processes_cannot_share_are_refused(litlab, monkeypatch, args, variables, says):
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    outcome = litlab("fit", "digits-mlp", *args)
    assert outcome.code == 2
    assert says in outcome.err


def test_a_run_resumes_only_with_as_many_processes_as_it_had(litlab, uri):
    run_id = litlab("fit", "digits-mlp", "--trainer.max_epochs", "1").run_id
    client = MlflowClient(uri)
    client.set_terminated(run_id, "KILLED")
    client.set_tag(run_id, "litlab.processes", "2")
    outcome = litlab("resume", run_id)
    assert outcome.code == 2
    assert f"run {run_id} was trained by 2 processes, but 1 are running now" in outcome.err
    assert client.get_run(run_id).info.status == "KILLED"

"""`litlab resume`: a stopped run ends like an uninterrupted one, bit for bit."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch
from mlflow import MlflowClient

from pipelines.cli import main
from pipelines.comparison.code_diff import uncommitted_changes
from pipelines.runtime.log import configure_logging
from pipelines.tracking.origin import is_alive, process_tags
from pipelines.tracking.run import Run
from pipelines.tracking.source_code import collect
from pipelines.tracking.store import Store
from pipelines.tracking.tags import HOST_TAG, PROCESS_TAG
from pipelines.training.resume import note_commit
from sweeps.workers.pool import PRELOAD

pytestmark = pytest.mark.usefixtures("tables")

EPOCHS = 4
STEPS = 39  # per epoch: 1,237 digits in batches of 32
STOP = """
import os, signal
from pathlib import Path
from lightning.pytorch import Callback
from pipelines.tracking import run as tracking

if Path(__file__).with_name("plan").exists():
    tracking.SEND_EVERY_S = 0.0  # the store has everything that was logged

class Stop(Callback):
    plan = Path(__file__).with_name("plan")

    def stop(self, now):
        if self.plan.exists() and self.plan.read_text().split()[0] == now:
            number = int(self.plan.read_text().split()[1])
            self.plan.unlink()
            os.kill(os.getpid(), number)

    def on_train_batch_end(self, trainer, *args):
        self.stop(f"step-{trainer.global_step}")

    def on_train_epoch_end(self, trainer, pl_module):  # the validation metrics are logged
        self.stop(f"epoch-{trainer.current_epoch}")

    def on_fit_end(self, trainer, pl_module):
        self.stop("end")
"""
LITLAB = """
import signal, sys
from pipelines.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a forkserver that a sweep started ignores it
sys.exit(main(argv))
"""
MLP = ["digits-mlp", "--model.dropout", "0.3", "--model.lr_scheduler", "modules.schedules.OneCycle"]
CONVNET = ["digits-convnet", "--data.crop_padding", "2", "--data.flip", "true", "--model.batch_norm", "true"]
PLATEAU = "lightning.pytorch.cli.ReduceLROnPlateau"
CIRCLES = ["circles", "--model.lr_scheduler", PLATEAU, "--model.lr_scheduler.monitor", "val/loss"]


@pytest.fixture(scope="module")
def context():
    """Multiprocessing context whose processes have torch and MLflow imported."""
    warm = multiprocessing.get_context("forkserver")
    warm.set_forkserver_preload(PRELOAD)  # as sweeps do: a process has one fork server
    return warm


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """A file that says when a training stops itself; the callback that reads it is next to it."""
    folder = tmp_path_factory.mktemp("stopping")
    (folder / "stopping.py").write_text(STOP)
    sys.path.insert(0, str(folder))
    yield folder / "plan"
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def whole(plan, tmp_path_factory):
    """Return the database of an uninterrupted run; each is trained once."""
    made = {}

    def train(*arguments):
        if arguments not in made:
            uri = f"sqlite:///{tmp_path_factory.mktemp('whole')}/mlflow.db"
            assert main(["fit", *arguments, "--tracking_uri", uri]) == 0
            made[arguments] = uri
        return made[arguments]

    return train


@pytest.fixture
def stopped(context, plan, uri):
    """Run a verb in another process that sends itself a signal at a given moment; return its exit code."""

    def stop(moment, number, *arguments, verb="fit"):
        plan.write_text(f"{moment} {int(number)}")
        child = context.Process(target=exec, args=(LITLAB, {"argv": [verb, *arguments, "--tracking_uri", uri]}))
        child.start()
        child.join(300)
        assert not plan.exists(), "it stopped at another moment"
        return child.exitcode

    return stop


def arguments_of(experiment, epochs=EPOCHS):
    keys = ["--trainer.max_epochs", str(epochs), "--trainer.callbacks+=stopping.Stop"]
    return [*experiment, *keys, "--trainer.accelerator", "cpu"]


def runs(uri):
    client = MlflowClient(uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(ids, order_by=["attributes.start_time ASC"])


def folder_of(run):
    return Path(urlparse(run.info.artifact_uri).path)


def measured(run):
    """Return the metrics in the run's own file, without times."""
    lines = [json.loads(line) for line in (folder_of(run) / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key not in ("timestamp", "fit_seconds")} for line in lines]


def in_store(uri, run):
    """Return key, epoch and value of each point in MLflow, without times."""
    client = MlflowClient(uri)
    keys = [key for key in run.data.metrics if key != "fit_seconds"]
    points = [point for key in keys for point in client.get_metric_history(run.info.run_id, key)]
    return sorted((point.key, point.step, point.value) for point in points)


def tensors(path):
    """Return the state of a training: weights, optimizer, schedules, counters and random generators."""
    content = torch.load(path, weights_only=True)
    state = {key: value for key, value in content["litlab"].items() if key not in ("seconds", "metrics")}
    keys = ("epoch", "global_step", "loops", "state_dict", "optimizer_states", "lr_schedulers")
    return {"litlab": state, **{key: content[key] for key in keys}}


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    else:
        assert one == other


def assert_identical_to_uninterrupted(uri, whole_uri):
    (stopped_run,), (whole_run,) = runs(uri), runs(whole_uri)
    assert stopped_run.info.status == whole_run.info.status == "FINISHED"
    assert measured(stopped_run) == measured(whole_run)
    points = in_store(uri, stopped_run)
    assert points == in_store(whole_uri, whole_run)
    assert len({point[:2] for point in points}) == len(points), "each epoch once"
    assert stopped_run.data.params == whole_run.data.params
    assert len(stopped_run.inputs.dataset_inputs) == len(stopped_run.outputs.model_outputs) == 1
    for name in ("best.ckpt", "last.ckpt"):
        paths = [folder_of(run) / "checkpoints" / name for run in (stopped_run, whole_run)]
        assert_same(*map(tensors, paths))
    names = [sorted(path.name for path in folder_of(run).rglob("*")) for run in (stopped_run, whole_run)]
    assert names[0] == names[1]
    for figure in (folder_of(whole_run) / "figures").iterdir():
        assert (folder_of(stopped_run) / "figures" / figure.name).read_bytes() == figure.read_bytes()


@pytest.mark.parametrize(
    ("experiment", "moment"),
    [
        (MLP, f"step-{2 * STEPS + 17}"),
        (MLP, "step-5"),
        pytest.param(CONVNET, f"step-{STEPS + 30}", marks=pytest.mark.slow),
        pytest.param(CIRCLES, "step-75", marks=pytest.mark.slow),
        (MLP, "epoch-2"),
        (MLP, "end"),
    ],
    ids=["dropout", "before the first checkpoint", "augmentation", "regions", "half-logged epoch", "before the test"],
)
def test_after_sigkill_the_same_run_ends_with_the_same_weights_and_one_curve(
    litlab, stopped, whole, uri, experiment, moment
):
    arguments = arguments_of(experiment)
    assert stopped(moment, signal.SIGKILL, *arguments) == -signal.SIGKILL
    (run,) = runs(uri)
    assert run.info.status == "RUNNING"
    outcome = litlab("resume", run.info.run_id)
    assert outcome.code == 0, outcome.err
    assert f"Resuming run {run.info.run_id}" in outcome.err
    assert_identical_to_uninterrupted(uri, whole(*arguments))


@pytest.mark.parametrize(
    ("number", "code", "point"),
    [
        pytest.param(signal.SIGINT, 130, "after epoch 2", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, f"from step {3 * STEPS + 1} of epoch 3", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_stopped_twice_resumes_twice(litlab, stopped, whole, uri, number, code, point):
    arguments = arguments_of(MLP)
    assert stopped(f"step-{STEPS + 3}", number, *arguments) == code
    (run,) = runs(uri)
    assert run.info.status == "KILLED"
    assert stopped(f"step-{3 * STEPS + 1}", number, run.info.run_id, verb="resume") == code
    (run,) = runs(uri)
    assert run.info.status == "KILLED"
    outcome = litlab("resume", run.info.run_id)
    assert f"{point}, from last.ckpt" in outcome.err
    assert "litlab.reason" not in runs(uri)[0].data.tags
    assert_identical_to_uninterrupted(uri, whole(*arguments))


@pytest.mark.parametrize("harm", ["flipped", pytest.param("truncated", marks=pytest.mark.slow)])
def test_a_damaged_last_checkpoint_is_named_and_the_previous_one_is_used(litlab, stopped, whole, uri, harm):
    arguments = arguments_of(MLP)
    stopped(f"step-{3 * STEPS + 17}", signal.SIGKILL, *arguments)
    (run,) = runs(uri)
    last = folder_of(run) / "checkpoints/last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content if harm == "flipped" else content[:-100])  # also damages best.ckpt, which is the same file
    outcome = litlab("resume", run.info.run_id)
    assert outcome.code == 0, outcome.err
    assert f"{last} is damaged" in outcome.err
    assert "after epoch 1, from previous.ckpt" in outcome.err
    for name in ("last.ckpt.damaged", "best.ckpt.damaged"):
        last.with_name(name).unlink()
    assert_identical_to_uninterrupted(uri, whole(*arguments))


def test_a_finished_run_is_not_changed_and_longer_training_is_a_new_run(litlab, plan, uri):
    run_id = litlab("fit", *arguments_of(["digits-mlp"], 1)).run_id
    before = {path: path.stat().st_mtime_ns for path in folder_of(runs(uri)[0]).rglob("*")}
    for more in ([], ["--trainer.max_epochs", "9"]):
        outcome = litlab("resume", run_id, *more)
        assert outcome.code == 2
        assert "is FINISHED: there is nothing to resume. Longer training is a new run" in outcome.err
    (run,) = runs(uri)
    assert run.info.status == "FINISHED"
    assert before == {path: path.stat().st_mtime_ns for path in folder_of(run).rglob("*")}


def test_a_run_that_cannot_be_resumed_is_refused_with_advice(litlab, stopped, plan, uri, monkeypatch):
    stopped("step-5", signal.SIGTERM, *arguments_of(["digits-mlp"]))
    (run,) = runs(uri)
    run_id, client = run.info.run_id, MlflowClient(uri)
    before = (folder_of(run) / "config.yaml").read_text()

    def refused(*more):
        outcome = litlab("resume", run_id, *more)
        assert outcome.code == 2, outcome.err
        assert client.get_run(run_id).info.status == run.info.status
        return outcome.err

    message = refused("--model.optimizer.lr", "0.1", "--trainer.max_epochs", "9")
    assert "model.optimizer.lr is 0.001, not 0.1; trainer.max_epochs is 4, not 9" in message
    assert "litlab fit -c" in message
    assert "unexpected argument" in refused("digits-convnet")
    assert (folder_of(run) / "config.yaml").read_text() == before
    client.set_tag(run_id, "data.sha256.train", "0" * 64)
    assert "trained on other data: this is not its train set" in refused()
    client.set_tag(run_id, "mlflow.parentRunId", run_id)
    assert "which trains it again. To continue: litlab fit digits-mlp" in refused()
    client.set_tag(run_id, "study", "dropout")
    assert "belongs to study dropout" in refused()
    client.set_tag(run_id, "litlab.parent", "sweep")
    assert "summarises other runs. To continue: litlab fit" in refused()
    assert "there is no run" in litlab("resume", "0" * 32).err


def test_without_a_run_the_unfinished_runs_are_listed(litlab, uri):
    assert "name a run" in litlab("resume").err
    run = Run(
        Store(), "an experiment", "a run", {"mlflow.source.name": "litlab fit x", "litlab.command": "litlab fit x"}
    )
    of_a_sweep = {"mlflow.source.name": "litlab fit y", "mlflow.parentRunId": run.run_id}
    Run(Store(), "an experiment", "another", of_a_sweep).finish("KILLED")
    run.finish("KILLED")
    outcome = litlab("resume")
    assert outcome.code == 2
    assert outcome.err.splitlines()[1:] == [f"  {run.run_id}  KILLED    litlab fit x"]


def test_a_run_whose_process_is_alive_is_not_resumed(litlab, uri):
    run = Run(Store(), "an experiment", "a run", {"mlflow.source.name": "litlab fit x"})
    client = MlflowClient(uri)
    outcome = litlab("resume", run.run_id)
    assert outcome.code == 2
    assert f"is being trained by process {os.getpid()}: stop that process first" in outcome.err
    client.set_tag(run.run_id, PROCESS_TAG, f"{os.getpid()}:another-start")
    assert "ended before training started. To restart" in litlab("resume", run.run_id).err, "a reused process id"
    client.set_tag(run.run_id, HOST_TAG, "elsewhere")
    assert "is RUNNING on elsewhere, and this machine cannot check" in litlab("resume", run.run_id).err
    assert "ended before training started" in litlab("resume", run.run_id, "--dead").err
    assert client.get_run(run.run_id).info.status == "RUNNING"


def test_a_process_that_has_ended_is_not_alive():
    child = multiprocessing.get_context("fork").Process(target=os.getpid)
    child.start()
    mine, host = process_tags()[PROCESS_TAG], process_tags()[HOST_TAG]
    while not os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT):
        pass
    began = mine.partition(":")[2]
    assert is_alive({PROCESS_TAG: mine, HOST_TAG: host})
    assert not is_alive({PROCESS_TAG: f"{child.pid}:{began}"}), "it is a zombie"
    child.join()
    assert not is_alive({PROCESS_TAG: f"{child.pid}:{began}"})
    assert not is_alive({})


@pytest.mark.parametrize("verb", ["test", pytest.param("validate", marks=pytest.mark.slow)])
def test_a_damaged_checkpoint_is_not_evaluated(litlab, plan, uri, verb):
    run_id = litlab("fit", *arguments_of(["digits-mlp"], 1)).run_id
    best = folder_of(runs(uri)[0]) / "checkpoints/best.ckpt"
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 1
    best.write_bytes(content)
    outcome = litlab(verb, run_id)
    assert outcome.code == 2
    assert f"{best} is damaged: its part" in outcome.err


def test_resuming_with_another_commit_is_reported_and_recorded(uri, capfd):
    now = collect().tags.get("git.commit")
    if now is None:
        pytest.skip("this is no git checkout")
    run = Run(Store(), "an experiment", "a run", {"git.commit": "0" * 40})
    configure_logging()
    note_commit(run, Store().find(run.run_id))
    run.finish("FINISHED")
    assert f"started with commit {'0' * 12} and resumes with {now[:12]}" in capfd.readouterr().err
    tags = MlflowClient(uri).get_run(run.run_id).data.tags
    assert (tags["git.commit"], tags["resumed.git.commit"]) == ("0" * 40, now)


def test_resuming_with_other_uncommitted_changes_is_reported_and_keeps_them(uri, tmp_path, monkeypatch, capfd):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "net.py").write_text("layers = 2\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init"], ["add", "."], [*identity, "commit", "-m", "first"]):
        subprocess.run(["git", *command], check=True, capture_output=True)
    run = Run(Store(), "an experiment", "a run", {})
    configure_logging()
    note_commit(run, Store().find(run.run_id))
    assert not capfd.readouterr().err
    (work / "net.py").write_text("layers = 3\n")
    note_commit(run, Store().find(run.run_id))
    run.finish("FINISHED")
    assert f"resumes with other code than it started with: litlab show {run.run_id}" in capfd.readouterr().err
    changes = uncommitted_changes(Store().find(run.run_id))
    assert "+layers = 3" in changes["net.py (resumed)"]

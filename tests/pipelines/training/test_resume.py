"""`litlab resume`: what was stopped ends as if nothing had been."""

import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch
from mlflow import MlflowClient

from pipelines.cli import main
from pipelines.tracking.origin import git_tags, is_alive, process_tags
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store
from pipelines.tracking.tags import HOST_TAG, PROCESS_TAG
from pipelines.training.resume import note_commit

pytestmark = pytest.mark.usefixtures("tables")

EPOCHS = 4
STEPS = 39  # of an epoch: 1,237 digits, 32 at a time
STOP = """
import os, signal
from pathlib import Path
from lightning.pytorch import Callback
from pipelines.tracking import run as tracking

if Path(__file__).with_name("plan").exists():
    tracking.SEND_EVERY_S = 0.0  # the store has all that was logged

class Stop(Callback):
    plan = Path(__file__).with_name("plan")

    def stop(self, now):
        if self.plan.exists() and self.plan.read_text().split()[0] == now:
            number = int(self.plan.read_text().split()[1])
            self.plan.unlink()
            os.kill(os.getpid(), number)

    def on_train_batch_end(self, trainer, *args):
        self.stop(f"step-{trainer.global_step}")

    def on_train_epoch_end(self, trainer, pl_module):  # the metrics of the validation have been logged
        self.stop(f"epoch-{trainer.current_epoch}")

    def on_fit_end(self, trainer, pl_module):
        self.stop("end")
"""
LITLAB = "import sys; from pipelines.cli import main; sys.exit(main(argv))"
MLP = ["digits-mlp", "--model.dropout", "0.3", "--model.lr_scheduler", "modules.schedules.OneCycle"]
CONVNET = ["digits-convnet", "--data.crop_padding", "2", "--data.flip", "true", "--model.batch_norm", "true"]
PLATEAU = "lightning.pytorch.cli.ReduceLROnPlateau"
CIRCLES = ["circles", "--model.lr_scheduler", PLATEAU, "--model.lr_scheduler.monitor", "val/loss"]


@pytest.fixture(scope="module")
def context():
    """Processes of their own that start warm."""
    warm = multiprocessing.get_context("forkserver")
    warm.set_forkserver_preload(["torch", "lightning.pytorch", "torchmetrics", "mlflow", "pipelines.training.fit"])
    return warm


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """A file that says when a training stops itself; beside it is the callback that reads it."""
    folder = tmp_path_factory.mktemp("stopping")
    (folder / "stopping.py").write_text(STOP)
    sys.path.insert(0, str(folder))
    yield folder / "plan"
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def whole(plan, tmp_path_factory):
    """The run of a training that nobody stopped, and its database; each is made once."""
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
    """A verb in a process of its own that stops itself at a moment, by a signal; returns its exit code."""

    def stop(moment, number, *arguments, verb="fit"):
        plan.write_text(f"{moment} {int(number)}")
        child = context.Process(target=exec, args=(LITLAB, {"argv": [verb, *arguments, "--tracking_uri", uri]}))
        child.start()
        child.join(300)
        assert not plan.exists(), "it has stopped at another moment"
        return child.exitcode

    return stop


def arguments_of(experiment, epochs=EPOCHS):
    return [*experiment, "--trainer.max_epochs", str(epochs), "--trainer.callbacks+=stopping.Stop"]


def runs(uri):
    client = MlflowClient(uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(ids, order_by=["attributes.start_time ASC"])


def folder_of(run):
    return Path(urlparse(run.info.artifact_uri).path)


def measured(run):
    """What the run's own file has, but for the times."""
    lines = [json.loads(line) for line in (folder_of(run) / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key not in ("timestamp", "fit_seconds")} for line in lines]


def in_store(uri, run):
    """Key, epoch and value of each point that MLflow has, but for the times."""
    client = MlflowClient(uri)
    keys = [key for key in run.data.metrics if key != "fit_seconds"]
    points = [point for key in keys for point in client.get_metric_history(run.info.run_id, key)]
    return sorted((point.key, point.step, point.value) for point in points)


def tensors(path):
    """All that a training is made of: weights, the optimiser's averages, schedules, counters, random generators."""
    content = torch.load(path, weights_only=True)
    state = {key: value for key, value in content["litlab"].items() if key not in ("seconds", "metrics")}
    kept = ("epoch", "global_step", "loops", "state_dict", "optimizer_states", "lr_schedulers")
    return {"litlab": state, **{key: content[key] for key in kept}}


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


def assert_as_if_nothing_had_been(uri, whole_uri):
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
        (CONVNET, f"step-{STEPS + 30}"),
        (CIRCLES, "step-75"),
        (MLP, "epoch-2"),
        (MLP, "end"),
    ],
    ids=["dropout", "before the first checkpoint", "augmentation", "regions", "half-logged epoch", "before the test"],
)
def test_after_kill_9_the_same_run_ends_with_the_same_weights_and_one_curve(
    litlab, stopped, whole, uri, experiment, moment
):
    arguments = arguments_of(experiment)
    assert stopped(moment, signal.SIGKILL, *arguments) == -signal.SIGKILL
    (run,) = runs(uri)
    assert run.info.status == "RUNNING"
    outcome = litlab("resume", run.info.run_id)
    assert outcome.code == 0, outcome.err
    assert f"going on with run {run.info.run_id}" in outcome.out
    assert_as_if_nothing_had_been(uri, whole(*arguments))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_run_that_was_stopped_twice_goes_on_twice(litlab, stopped, whole, uri, number, code):
    arguments = arguments_of(MLP)
    assert stopped(f"step-{STEPS + 3}", number, *arguments) == code
    (run,) = runs(uri)
    assert run.info.status == "KILLED"
    assert stopped(f"step-{3 * STEPS + 1}", number, run.info.run_id, verb="resume") == code
    (run,) = runs(uri)
    assert run.info.status == "KILLED"
    outcome = litlab("resume", run.info.run_id)
    assert "after epoch 2, from last.ckpt" in outcome.out
    assert "litlab.reason" not in runs(uri)[0].data.tags
    assert_as_if_nothing_had_been(uri, whole(*arguments))


@pytest.mark.parametrize("harm", ["flipped", "truncated"])
def test_a_damaged_last_checkpoint_is_named_and_the_one_before_is_used(litlab, stopped, whole, uri, harm):
    arguments = arguments_of(MLP)
    stopped(f"step-{3 * STEPS + 17}", signal.SIGKILL, *arguments)
    (run,) = runs(uri)
    last = folder_of(run) / "checkpoints/last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content if harm == "flipped" else content[:-100])  # of best.ckpt too, which is the same file
    outcome = litlab("resume", run.info.run_id)
    assert outcome.code == 0, outcome.err
    assert f"{last} is damaged" in outcome.err
    assert "after epoch 1, from previous.ckpt" in outcome.out
    for name in ("last.ckpt.damaged", "best.ckpt.damaged"):
        last.with_name(name).unlink()
    assert_as_if_nothing_had_been(uri, whole(*arguments))


def test_a_finished_run_stays_as_it_is_and_a_longer_training_is_another_run(litlab, plan, uri):
    run_id = litlab("fit", *arguments_of(["digits-mlp"], 1)).run_id
    before = {path: path.stat().st_mtime_ns for path in folder_of(runs(uri)[0]).rglob("*")}
    for more in ([], ["--trainer.max_epochs", "9"]):
        outcome = litlab("resume", run_id, *more)
        assert outcome.code == 2
        assert "is FINISHED: there is nothing to resume. A longer training is another run" in outcome.err
    (run,) = runs(uri)
    assert run.info.status == "FINISHED"
    assert before == {path: path.stat().st_mtime_ns for path in folder_of(run).rglob("*")}


def test_what_cannot_go_on_is_refused_and_says_what_to_do(litlab, stopped, plan, uri, monkeypatch):
    stopped("step-5", signal.SIGTERM, *arguments_of(["digits-mlp"]))
    (run,) = runs(uri)
    run_id, client = run.info.run_id, MlflowClient(uri)
    before = (folder_of(run) / "config.yaml").read_text()

    def refused(*more):
        outcome = litlab("resume", run_id, *more)
        assert outcome.code == 2, outcome.err
        assert client.get_run(run_id).info.status == run.info.status
        return outcome.err

    said = refused("--model.optimizer.lr", "0.1", "--trainer.max_epochs", "9")
    assert "model.optimizer.lr is 0.001, not 0.1; trainer.max_epochs is 4, not 9" in said
    assert "litlab fit -c" in said
    assert "one too many" in refused("digits-convnet")
    assert (folder_of(run) / "config.yaml").read_text() == before
    client.set_tag(run_id, "data.sha256.train", "0" * 64)
    assert "trained on other data: this is not its train set" in refused()
    client.set_tag(run_id, "mlflow.parentRunId", run_id)
    assert "which trains it again by itself: litlab fit digits-mlp" in refused()
    client.set_tag(run_id, "study", "dropout")
    assert "is one of study dropout" in refused()
    client.set_tag(run_id, "litlab.parent", "sweep")
    assert "stands for others; the same command goes on with what is missing: litlab fit" in refused()
    assert "there is no run" in litlab("resume", "0" * 32).err


def test_who_names_no_run_is_told_which_are_not_finished(litlab, uri):
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


def test_a_run_whose_process_is_alive_is_left_to_it(litlab, uri):
    run = Run(Store(), "an experiment", "a run", {"mlflow.source.name": "litlab fit x"})
    client = MlflowClient(uri)
    outcome = litlab("resume", run.run_id)
    assert outcome.code == 2
    assert f"is being trained by process {os.getpid()}: end that first" in outcome.err
    client.set_tag(run.run_id, PROCESS_TAG, f"{os.getpid()}:another-start")
    assert "ended before it began; start anew" in litlab("resume", run.run_id).err, "a number that is used again"
    client.set_tag(run.run_id, HOST_TAG, "elsewhere")
    assert "is RUNNING, on elsewhere, where it cannot be seen whether it is alive" in litlab("resume", run.run_id).err
    assert "ended before it began" in litlab("resume", run.run_id, "--dead").err
    assert client.get_run(run.run_id).info.status == "RUNNING"


def test_a_process_that_has_ended_is_not_alive():
    child = multiprocessing.get_context("fork").Process(target=os.getpid)
    child.start()
    mine, host = process_tags()[PROCESS_TAG], process_tags()[HOST_TAG]
    while not os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT):
        pass
    began = mine.partition(":")[2]
    assert is_alive({PROCESS_TAG: mine, HOST_TAG: host})
    assert not is_alive({PROCESS_TAG: f"{child.pid}:{began}"}), "it waits to be buried"
    child.join()
    assert not is_alive({PROCESS_TAG: f"{child.pid}:{began}"})
    assert not is_alive({})


@pytest.mark.parametrize("verb", ["test", "validate"])
def test_a_damaged_checkpoint_is_not_measured(litlab, plan, uri, verb):
    run_id = litlab("fit", *arguments_of(["digits-mlp"], 1)).run_id
    best = folder_of(runs(uri)[0]) / "checkpoints/best.ckpt"
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 1
    best.write_bytes(content)
    outcome = litlab(verb, run_id)
    assert outcome.code == 2
    assert f"{best} is damaged: it does not match its digest in best.ckpt.sha256" in outcome.err


def test_going_on_with_other_code_is_said_and_recorded(uri, capfd):
    now = git_tags().get("git.commit")
    if now is None:
        pytest.skip("this is no git checkout")
    run = Run(Store(), "an experiment", "a run", {"git.commit": "0" * 40})
    note_commit(run, Store().find(run.run_id))
    run.finish("FINISHED")
    assert f"began with commit {'0' * 12} and goes on with {now[:12]}" in capfd.readouterr().err
    tags = MlflowClient(uri).get_run(run.run_id).data.tags
    assert (tags["git.commit"], tags["resumed.git.commit"]) == ("0" * 40, now)

"""`litlab fit NAME --seeds N`: runs that differ in their seed, under one that has their mean and spread."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from scipy import stats

from pipelines.cli import main
from pipelines.comparison.intervals import summarize
from pipelines.tracking.query import find_runs
from pipelines.tracking.store import Store

PROGRAM = "import sys; from pipelines.cli import main; sys.exit(main())"
CHANGED = ["digits-mlp", "--model.dropout", "0.3", "--trainer.max_epochs", "2"]
SEEDS = ["10", "11", "12", "13", "14"]
UNLUCKY = """
import os, time
from pathlib import Path
import torch
from moody import Moody

class Unlucky(Moody):
    def training_step(self, batch, i):
        seed = os.environ["PL_GLOBAL_SEED"]
        if seed == "1" and not Path(__file__).with_name("mended").exists():
            raise RuntimeError("out of luck")
        return super().training_step(batch, i)

    def validation_step(self, batch, i):
        self.log("val/acc", 0.1 + int(os.environ["PL_GLOBAL_SEED"]) / 10, sync_dist=True)

    def test_step(self, batch, i):
        self.log("test/acc", 0.1 + int(os.environ["PL_GLOBAL_SEED"]) / 10)
"""


class Group:
    """The runs of an experiment that has been trained with several seeds."""

    def __init__(self, uri, name):
        self.store, self.client, self._name = Store(uri), MlflowClient(uri), name

    @property
    def runs(self):
        """All runs, the oldest first."""
        found = self.client.get_experiment_by_name(self._name)
        order = ["attributes.start_time ASC"]
        return list(self.client.search_runs([found.experiment_id], order_by=order)) if found else []

    @property
    def parents(self):
        return [run for run in self.runs if run.data.tags.get("litlab.parent") == "seeds"]

    @property
    def parent(self):
        (parent,) = self.parents
        return parent

    @property
    def children(self):
        return [run for run in self.runs if "mlflow.parentRunId" in run.data.tags]

    @property
    def ends(self):
        """Seed and status of each child."""
        return [(run.data.tags["seed"], run.info.status) for run in self.children]


def files_of(run):
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Five seeds of the digits' MLP, from 10 on, two at a time."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('trained') / 'mlflow.db'}"
    command = ["fit", *CHANGED, "--seed_everything", "10", "--seeds=5", "--workers", "2", "--tracking_uri", uri]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(command) == 0
    group = Group(uri, "digits-mlp")
    group.uri, group.said = uri, said.getvalue()
    return group


@pytest.fixture
def group(uri):
    """Of the moody model."""
    return Group(uri, "moody")


@pytest.fixture
def experiment(moody, tmp_path):
    """The moody model whose accuracy is 0.1 for seed 0, 0.2 for seed 1 and so on; seed 1 fails until it is mended."""
    moody({"model.score": [0.5]})
    (tmp_path / "unlucky.py").write_text(UNLUCKY)
    settings = yaml.safe_load((tmp_path / "moody.yaml").read_text())
    settings["model"]["class_path"] = "unlucky.Unlucky"
    (tmp_path / "moody.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "moody.yaml"


def mend(experiment):
    experiment.with_name("mended").touch()


def until(condition, seconds=120):
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_all_seeds_are_runs_under_one_parent(trained):
    parent = trained.parent
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == "dropout=0.3 max_epochs=2, seeds 10 to 14"
    assert parent.data.params["seeds"] == "10 to 14"
    assert parent.data.params["model.dropout"] == "0.3"
    assert "seed_everything" not in parent.data.params
    assert sorted(trained.ends) == [(seed, "FINISHED") for seed in SEEDS]
    for run in trained.children:
        seed = run.data.tags["seed"]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["litlab.config_hash"] == parent.data.tags["litlab.config_hash"]
        assert run.info.run_name == f"dropout=0.3 max_epochs=2 seed={seed}"
        assert run.data.params == {
            **{key: value for key, value in parent.data.params.items() if key != "seeds"},
            "seed_everything": seed,
        }


def test_the_parent_has_mean_deviation_and_interval_of_each_metric(trained):
    parent = trained.parent.data.metrics
    assert parent["n"] == 5
    measured = {key for key in trained.children[0].data.metrics if key.startswith(("test/", "selected/"))}
    assert {"test/acc", "test/loss", "selected/val/acc", "selected/train/loss"} <= measured
    for key in measured:
        values = [run.data.metrics[key] for run in trained.children]
        summary = summarize(values)
        low, high = stats.t.interval(0.95, 4, loc=stats.tmean(values), scale=stats.sem(values))
        assert parent[key] == pytest.approx(summary.mean, rel=1e-12)
        assert parent[f"{key}_sd"] == pytest.approx(summary.sd, rel=1e-12) == pytest.approx(stats.tstd(values))
        assert parent[f"{key}_ci95_low"] == pytest.approx(summary.ci95[0], rel=1e-12) == pytest.approx(low)
        assert parent[f"{key}_ci95_high"] == pytest.approx(summary.ci95[1], rel=1e-12) == pytest.approx(high)


def test_the_parent_has_curves_and_a_note_that_names_each_run(trained):
    files, note = files_of(trained.parent), trained.parent.data.tags["mlflow.note.content"]
    assert {"figures/learning_curves.png", "figures/learning_curves.svg", "note.md", "data.json"} <= files
    metrics = trained.parent.data.metrics
    assert f"| test/acc | {metrics['test/acc']:.4f} | {metrics['test/acc_sd']:.4f} | 5 |" in note
    for run in trained.children:
        line = next(line for line in note.splitlines() if run.info.run_id in line)
        assert line.startswith(f"| {run.data.tags['seed']} | {run.data.metrics['test/acc']:.4f} |")


def test_the_screen_says_what_came_out_and_what_to_do_with_it(trained):
    run_id = trained.parent.info.run_id
    lines = [line.split() for line in trained.said.splitlines()]
    assert ["run", run_id] in lines
    assert ["compare", "litlab", "compare", run_id, "--tracking_uri", trained.uri] in lines
    assert f"{trained.parent.data.metrics['test/acc']:.4f}" in trained.said


def test_a_seed_is_the_same_run_that_litlab_fit_makes(litlab, trained, uri):
    assert litlab("fit", *CHANGED, "--seed_everything", "12").code == 0
    (alone,) = Group(uri, "digits-mlp").runs
    child = next(run for run in trained.children if run.data.tags["seed"] == "12")
    timed = {"fit_seconds"}
    assert {key: value for key, value in child.data.metrics.items() if key not in timed} == {
        key: value for key, value in alone.data.metrics.items() if key not in timed
    }
    for key in ("train/loss", "val/loss"):
        of_child, of_alone = [
            [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]
            for client, run in ((trained.client, child), (MlflowClient(uri), alone))
        ]
        assert of_child == of_alone
        assert len(of_child) == 2
    assert child.data.params == alone.data.params
    assert child.info.run_name == alone.info.run_name
    same = [key for key in alone.data.tags if key.startswith(("data.sha256", "mlflow.source.name", "seed"))]
    same += ["litlab.config_hash", "litlab.experiment", "mlflow.note.content"]
    assert {key: child.data.tags[key] for key in same} == {key: alone.data.tags[key] for key in same}
    assert files_of(alone) == files_of(child)


def test_the_parent_stands_for_its_seeds_and_is_no_run_of_the_experiment(trained):
    parent = trained.parent.info.run_id
    assert sorted(run.seed for run in find_runs(trained.store, [parent]).runs) == SEEDS
    assert parent not in [run.run_id for run in find_runs(trained.store, ["digits-mlp"]).runs]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--seeds", "2", "--model.scor", "0.3"], "model.score"),
        (["--seeds", "2", "--model.score", "1.5"], "score must be from 0 to 1"),
        (["--seeds", "0"], "--seeds 0: expected 1 to 1000"),
        (["--seeds", "1001"], "--seeds 1001: expected 1 to 1000"),
        (["--seeds", "many"], "--seeds: invalid int value: 'many'"),
        (["--seeds", "2", "--workers", "0"], "--workers 0: expected at least 1"),
        (["--seeds", "2", "--print_config"], "--print_config shows something and trains nothing"),
        (["--seeds", "2", "--trainer.fast_dev_run", "true"], "fast_dev_run makes no run"),
        (["--seeds", "2", "--trainer.max_epochs", "0"], "must not be 0"),
        (["--seeds", "2", "--seed_everything", "false"], "must be a whole number"),
        (["--seeds", "2", "--seed_everything", "4294967295"], "would pass 4294967295"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_there_is_a_run(litlab, experiment, group, args, says):
    outcome = litlab("fit", experiment, *args)
    assert outcome.code == 2
    assert says in outcome.err
    assert "Traceback" not in outcome.err
    assert group.runs == []


def test_one_seed_has_a_mean_and_no_spread_and_the_same_command_makes_new_runs(litlab, experiment, group):
    for _ in range(2):
        assert litlab("fit", experiment, "--seeds", "1").code == 0
    first, second = group.parents
    for parent in (first, second):
        assert parent.info.status == "FINISHED"
        assert parent.data.metrics["test/acc"] == pytest.approx(0.1)
        assert parent.data.metrics["n"] == 1
        assert not [key for key in parent.data.metrics if key.endswith(("_sd", "_low", "_high"))]
    assert [run.data.tags["mlflow.parentRunId"] for run in group.children] == [first.info.run_id, second.info.run_id]


def test_a_seed_that_fails_costs_no_other_and_is_tried_again_by_the_same_command(litlab, experiment, group):
    command = ["fit", experiment, "--seeds", "3", "--workers", "2"]
    outcome = litlab(*command)
    assert outcome.code == 1
    assert "2 of 3 seeds are done, the same command tries the others again" in outcome.err
    assert sorted(group.ends) == [("0", "FINISHED"), ("1", "FAILED"), ("2", "FINISHED")]
    parent = group.parent
    assert parent.info.status == "FAILED"
    assert parent.data.tags["litlab.reason"] == "seed 1: RuntimeError: out of luck"
    assert parent.data.metrics["test/acc"] == pytest.approx(0.2)
    assert parent.data.metrics["n"] == 2

    mend(experiment)
    again = litlab(*command)
    assert again.code == 0, again.err
    assert again.run_id == parent.info.run_id
    assert group.ends[3:] == [("1", "FINISHED")], "no other seed is trained again"
    parent = group.parent
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["test/acc"] == pytest.approx(0.2)
    assert parent.data.metrics["test/acc_sd"] == pytest.approx(0.1)
    assert parent.data.metrics["n"] == 3
    assert "3 of 3 seeds (0 to 2) are done" in parent.data.tags["mlflow.note.content"]


def test_ctrl_c_leaves_nothing_running_and_the_same_command_trains_what_is_missing(litlab, experiment, group):
    mend(experiment)
    command = ["fit", experiment, "--seeds", "3", "--model.slow", "0.2"]

    def stop():
        until(lambda: ("0", "FINISHED") in group.ends and ("1", "RUNNING") in group.ends)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=stop)
    thread.start()
    outcome = litlab(*command)
    thread.join()
    assert outcome.code == 130
    assert "litlab: stopped; 1 of 3 seeds are done, the same command goes on from here" in outcome.err
    assert "Traceback" not in outcome.err
    assert group.ends == [("0", "FINISHED"), ("1", "KILLED")]
    assert group.parent.info.status == "KILLED"
    assert group.parent.data.tags["litlab.reason"] == "stopped"

    again = litlab(*command)
    assert again.code == 0, again.err
    assert f"going on with run {again.run_id}" in again.out
    assert group.ends[2:] == [("1", "FINISHED"), ("2", "FINISHED")]
    assert group.parent.info.status == "FINISHED"
    assert group.parent.data.metrics["n"] == 3


def test_other_data_or_another_configuration_go_on_with_nothing(litlab, experiment, group):
    command = ["fit", experiment, "--seeds", "1", "--seed_everything", "1"]
    for more in ([], ["--data.n_train", "300"], ["--model.score", "0.7"]):
        assert litlab(*command, *more).code == 1
    assert len(group.parents) == 3


def test_a_run_that_may_be_alive_on_another_machine_is_left_alone(litlab, experiment, group):
    command = ["fit", experiment, "--seeds", "1", "--seed_everything", "1"]
    litlab(*command)
    theirs = group.parent.info.run_id
    group.client.set_tag(theirs, "machine.host", "elsewhere")
    group.client.update_run(theirs, status="RUNNING")
    outcome = litlab(*command)
    assert f"run {theirs} of the same seeds may be alive on elsewhere" in outcome.err
    assert outcome.run_id != theirs
    assert [run.info.status for run in group.parents] == ["RUNNING", "FAILED"]


def test_two_processes_never_train_the_same_seeds_and_a_killed_one_loses_nothing(litlab, experiment, group, tmp_path):
    mend(experiment)
    command = ["fit", experiment, "--seeds", "2", "--model.slow", "0.2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    first = subprocess.Popen([sys.executable, "-c", PROGRAM, *map(str, command)], cwd=tmp_path, **pipes)
    try:
        until(lambda: group.ends == [("0", "FINISHED"), ("1", "RUNNING")])
        second = litlab(*command)
        assert second.code == 2
        assert "seeds 0 to 1 of this configuration are being trained by another process" in second.err
        assert len(group.runs) == 3
    finally:
        first.kill()
        first.communicate(timeout=60)
    assert group.parent.info.status == "RUNNING"
    again = litlab(*command)
    assert again.code == 0, again.err
    assert group.ends == [("0", "FINISHED"), ("1", "KILLED"), ("1", "FINISHED")]
    assert group.parent.info.status == "FINISHED"


def test_the_process_that_counts_imports_no_torch(experiment, tmp_path):
    program = f"{PROGRAM.rpartition(';')[0]}; print(main(), 'torch' in sys.modules)"
    command = [sys.executable, "-c", program, "fit", experiment, "--seeds", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr


@pytest.mark.slow
def test_each_seed_may_use_several_devices(experiment, group, tmp_path):
    """In a process of its own: the further devices' processes find the model by this test's PYTHONPATH."""
    mend(experiment)
    ddp = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]
    command = [sys.executable, "-c", PROGRAM, "fit", experiment, "--seeds", "2", *ddp]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert group.ends == [("0", "FINISHED"), ("1", "FINISHED")]
    assert group.parent.data.metrics["test/acc"] == pytest.approx(0.15)

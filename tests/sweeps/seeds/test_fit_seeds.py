"""`litlab fit NAME --seeds N`: runs that differ only in their seed, and a summary run with their mean and spread."""

import contextlib
import io
import os
import re
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
from pipelines.runtime.errors import UserError
from pipelines.tracking.query import find_runs
from pipelines.tracking.store import Store
from sweeps.seeds.fit_seeds import fit_seeds

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
        if seed == "1" and not Path(__file__).with_name("fixed").exists():
            raise RuntimeError("out of luck")
        return super().training_step(batch, i)

    def validation_step(self, batch, i):
        self.log("val/acc", 0.1 + int(os.environ["PL_GLOBAL_SEED"]) / 10, sync_dist=True)

    def test_step(self, batch, i):
        self.log("test/acc", 0.1 + int(os.environ["PL_GLOBAL_SEED"]) / 10)
"""
DELETES = """
import os
from lightning.pytorch import Callback

class Deletes(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if os.environ["PL_GLOBAL_SEED"] == "1" and trainer.current_epoch == 1:
            trainer.logger.experiment.delete_run(trainer.logger.run_id)
"""


class Group:
    """The runs of an experiment that was trained with several seeds."""

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
    def seeds_and_status(self):
        """Seed and status of each child run."""
        return [(run.data.tags["seed"], run.info.status) for run in self.children]


def files_of(run):
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Five seeds of digits-mlp from 10 on, two in parallel."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('trained') / 'mlflow.db'}"
    command = ["fit", *CHANGED, "--seed_everything", "10", "--seeds=5", "--workers", "2", "--tracking_uri", uri]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(command) == 0
    group = Group(uri, "digits-mlp")
    group.uri, group.out = uri, out.getvalue()
    return group


@pytest.fixture
def group(uri):
    """The runs of the test model."""
    return Group(uri, "moody")


@pytest.fixture
def experiment(moody, tmp_path):
    """A test model with accuracy 0.1 for seed 0, 0.2 for seed 1 and so on; seed 1 fails until `fix` is called."""
    moody({"model.score": [0.5]})
    (tmp_path / "unlucky.py").write_text(UNLUCKY)
    settings = yaml.safe_load((tmp_path / "moody.yaml").read_text())
    settings["model"]["class_path"] = "unlucky.Unlucky"
    (tmp_path / "moody.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "moody.yaml"


def fix(experiment):
    experiment.with_name("fixed").touch()


def until(condition, seconds=120):
    """Wait until a condition is true."""
    end, begun = time.monotonic() + seconds, time.monotonic()
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(max(0.05, time.monotonic() - begun))  # to read a store takes time that the others need
        begun = time.monotonic()


def test_each_seed_is_a_child_run_of_one_summary_run(trained):
    parent = trained.parent
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == "dropout=0.3 max_epochs=2, seeds 10 to 14"
    assert parent.data.params["seeds"] == "10 to 14"
    assert parent.data.params["model.dropout"] == "0.3"
    assert "seed_everything" not in parent.data.params
    assert sorted(trained.seeds_and_status) == [(seed, "FINISHED") for seed in SEEDS]
    for run in trained.children:
        seed = run.data.tags["seed"]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["litlab.config_hash"] == parent.data.tags["litlab.config_hash"]
        assert run.info.run_name == f"dropout=0.3 seed={seed} max_epochs=2"
        assert run.data.params == {
            **{key: value for key, value in parent.data.params.items() if key != "seeds"},
            "seed_everything": seed,
        }


def test_the_summary_run_keeps_the_code_and_each_seed_refers_to_it(trained):
    commits = {child.data.tags["git.commit"] for child in trained.children}
    assert commits == {trained.parent.data.tags["git.commit"]}
    kept = [len(trained.client.list_artifacts(run.info.run_id, "code")) for run in (trained.parent, *trained.children)]
    assert kept[0] >= 1, "the packages at least"
    assert kept[1:] == [0] * len(SEEDS)


def test_each_seed_keeps_what_its_process_printed(trained):
    for run in trained.children:
        text = (Path(run.info.artifact_uri.removeprefix("file://")) / "terminal.log").read_text()
        assert [text.count(f"epoch   {epoch} ") for epoch in range(3)] == [1, 1, 0]


def test_the_summary_run_has_mean_deviation_and_interval_of_each_metric(trained):
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


def test_the_summary_run_has_learning_curves_and_a_note_that_lists_each_run(trained):
    files, note = files_of(trained.parent), trained.parent.data.tags["mlflow.note.content"]
    assert {"figures/learning_curves.png", "figures/learning_curves.svg", "note.md", "data.json"} <= files
    metrics = trained.parent.data.metrics
    assert f"| test/acc | {metrics['test/acc']:.4f} | {metrics['test/acc_sd']:.4f} | 5 |" in note
    for run in trained.children:
        line = next(line for line in note.splitlines() if run.info.run_id in line)
        assert line.startswith(f"| {run.data.tags['seed']} | {run.data.metrics['test/acc']:.4f} |")


def test_the_output_has_the_metrics_and_the_next_commands(trained):
    run_id = trained.parent.info.run_id
    lines = [line.split() for line in trained.out.splitlines()]
    assert ["run", run_id] in lines
    assert ["compare", "litlab", "compare", run_id, "--tracking_uri", trained.uri] in lines
    assert f"{trained.parent.data.metrics['test/acc']:.4f}" in trained.out


def test_a_seed_is_the_same_run_as_that_of_litlab_fit(litlab, trained, uri):
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
    own = {name for name in files_of(alone) if not name.startswith("code/")}  # a child's is that of the summary run
    assert own == files_of(child)


def test_the_summary_run_selects_its_seeds_and_is_not_a_run_of_the_experiment(trained):
    parent = trained.parent.info.run_id
    assert sorted(run.seed for run in find_runs(trained.store, [parent]).runs) == SEEDS
    assert parent not in [run.run_id for run in find_runs(trained.store, ["digits-mlp"]).runs]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--seeds", "2", "--model.scor", "0.3"], "model.score"),
        (["--seeds", "2", "--model.score", "1.5"], "score must be from 0 to 1"),
        (["--seeds", "0"], "--seeds 0: expected 1 to 1000"),
        (["--seeds", "1001"], "--seeds 1001: expected 1 to 1000"),
        (["--seeds", "many"], "--seeds: invalid int value: 'many'"),
        (["--seeds", "2", "--workers", "0"], "--workers 0: expected at least 1"),
        (["--seeds", "2", "--print_config"], "--print_config trains nothing: leave out --seeds"),
        (["--seeds", "2", "--trainer.fast_dev_run", "true"], "fast_dev_run records no run"),
        (["--seeds", "2", "--trainer.max_epochs", "0"], "must not be 0"),
        (["--seeds", "2", "--seed_everything", "false"], "--seed_everything: invalid int value: 'false'"),
        (["--seeds", "2", "--seed_everything", "4294967295"], "would exceed 4294967295"),
    ],
)
def test_invalid_arguments_are_refused_before_a_run_is_created(litlab, experiment, group, args, message):
    outcome = litlab("fit", experiment, *args)
    assert outcome.code == 2
    assert message in outcome.err
    assert not re.search('File ".*(site-packages|pipelines|sweeps)/', outcome.err)  # only files of the user are shown
    assert group.runs == []


def test_a_seed_of_the_experiment_that_is_no_integer_is_refused(litlab, experiment, group):
    settings = yaml.safe_load(experiment.read_text())
    experiment.write_text(yaml.safe_dump({**settings, "seed_everything": False}))
    outcome = litlab("fit", experiment, "--seeds", "2")
    assert outcome.code == 2
    assert "seed_everything False: with --seeds it is the first seed and must be an integer" in outcome.err
    assert group.runs == []


def test_a_failed_seed_is_reported_by_the_function(experiment, group, uri):
    result = fit_seeds(experiment, seeds=2, workers=2)
    assert result.experiment == "moody"
    assert result.run_id == group.parent.info.run_id
    assert [run.seed for run in result.runs] == ["0"]
    assert [(failed.job.seed, failed.reason) for failed in result.failed] == [(1, "RuntimeError: out of luck")]
    assert result.stop_signal is None
    with pytest.raises(UserError, match="--workers 0: expected at least 1"):
        fit_seeds(experiment, seeds=2, workers=0)


def test_one_seed_has_no_spread_and_a_finished_command_starts_new_runs(litlab, experiment, group):
    for _ in range(2):
        assert litlab("fit", experiment, "--seeds", "1").code == 0
    first, second = group.parents
    for parent in (first, second):
        assert parent.info.status == "FINISHED"
        assert parent.data.metrics["test/acc"] == pytest.approx(0.1)
        assert parent.data.metrics["n"] == 1
        assert not [key for key in parent.data.metrics if key.endswith(("_sd", "_low", "_high"))]
    assert [run.data.tags["mlflow.parentRunId"] for run in group.children] == [first.info.run_id, second.info.run_id]


def test_more_seeds_of_a_finished_command_are_added_to_its_runs_and_their_summary(litlab, experiment, group):
    fix(experiment)
    for seeds in ("2", "3"):
        outcome = litlab("fit", experiment, "--seeds", seeds)
        assert outcome.code == 0, outcome.err
    assert outcome.run_id == group.parent.info.run_id
    assert group.seeds_and_status == [("0", "FINISHED"), ("1", "FINISHED"), ("2", "FINISHED")]
    parent = group.parent
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == "seeds 0 to 2"
    assert parent.data.tags["litlab.seeds"] == "0 to 2"
    assert parent.data.metrics["n"] == 3
    assert parent.data.metrics["test/acc"] == pytest.approx(0.2)
    assert "3 of 3 seeds (0 to 2) are done" in parent.data.tags["mlflow.note.content"]
    assert litlab("fit", experiment, "--seeds", "2").code == 0
    assert len(group.parents) == 2, "fewer seeds begin anew"


def test_a_failed_seed_affects_no_other_and_is_retried_by_the_same_command(litlab, experiment, group):
    command = ["fit", experiment, "--seeds", "3", "--workers", "2"]
    outcome = litlab(*command)
    assert outcome.code == 1
    assert "2 of 3 seeds are done. Run the same command again to retry the others." in outcome.err
    assert sorted(group.seeds_and_status) == [("0", "FINISHED"), ("1", "FAILED"), ("2", "FINISHED")]
    parent = group.parent
    assert parent.info.status == "FAILED"
    assert parent.data.tags["litlab.reason"] == "seed 1: RuntimeError: out of luck"
    assert parent.data.metrics["test/acc"] == pytest.approx(0.2)
    assert parent.data.metrics["n"] == 2

    for seed in ("1", "none"):  # runs of another program below the same parent
        tags = {"mlflow.parentRunId": parent.info.run_id, "seed": seed}
        theirs = group.client.create_run(parent.info.experiment_id, tags=tags)
        if seed == "1":
            group.client.log_metric(theirs.info.run_id, "test/acc", 1.0)
            group.client.set_terminated(theirs.info.run_id)
    fix(experiment)
    again = litlab(*command)
    assert again.code == 0, again.err
    assert again.run_id == parent.info.run_id
    assert group.seeds_and_status[3:5] == [("1", "FINISHED"), ("none", "RUNNING")], "others' runs are left alone"
    assert group.seeds_and_status[5:] == [("1", "FINISHED")], "finished seeds are not trained again"
    parent = group.parent
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["test/acc"] == pytest.approx(0.2)
    assert parent.data.metrics["test/acc_sd"] == pytest.approx(0.1)
    assert parent.data.metrics["n"] == 3
    assert "3 of 3 seeds (0 to 2) are done" in parent.data.tags["mlflow.note.content"]


def test_seeds_whose_runs_were_deleted_while_they_trained_are_said_to_be_missing(litlab, experiment, group, tmp_path):
    fix(experiment)
    (tmp_path / "deletes.py").write_text(DELETES)
    done = litlab("fit", experiment, "--seeds", "2", "--trainer.callbacks", "deletes.Deletes")
    assert done.code == 0, done.err
    assert "1 of 2 seeds are done: the runs of the others were deleted, or are sent by litlab sync" in done.err
    assert group.seeds_and_status == [("0", "FINISHED")]
    assert group.parent.data.metrics["n"] == 1


@pytest.mark.slow
def test_ctrl_c_leaves_no_run_active_and_the_same_command_trains_the_missing_seeds(litlab, experiment, group):
    fix(experiment)
    command = ["fit", experiment, "--seeds", "3", "--model.slow", "0.2"]

    def stop():
        until(lambda: ("0", "FINISHED") in group.seeds_and_status and ("1", "RUNNING") in group.seeds_and_status)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=stop)
    thread.start()
    outcome = litlab(*command)
    thread.join()
    assert outcome.code == 130
    assert "litlab: stopped; 1 of 3 seeds are done. Run the same command again to continue." in outcome.err
    assert "Traceback" not in outcome.err
    assert group.seeds_and_status == [("0", "FINISHED"), ("1", "KILLED")]
    assert group.parent.info.status == "KILLED"
    assert group.parent.data.tags["litlab.reason"] == "stopped"

    again = litlab(*command)
    assert again.code == 0, again.err
    assert f"litlab: continuing run {again.run_id}" in again.err
    assert group.seeds_and_status[2:] == [("1", "FINISHED"), ("2", "FINISHED")]
    assert group.parent.info.status == "FINISHED"
    assert group.parent.data.metrics["n"] == 3


def test_other_data_or_another_configuration_starts_a_new_summary_run(litlab, experiment, group):
    command = ["fit", experiment, "--seeds", "1", "--seed_everything", "1"]
    for more in ([], ["--data.n_train", "300"], ["--model.score", "0.7"]):
        assert litlab(*command, *more).code == 1
    assert len(group.parents) == 3


def test_a_summary_run_that_recorded_no_digest_of_its_data_is_not_continued(litlab, experiment, group):
    """Its process died before it had recorded them."""
    command = ["fit", experiment, "--seeds", "1", "--seed_everything", "1"]
    litlab(*command)
    first = group.parent
    for key in [key for key in first.data.tags if key.startswith("data.sha256.")]:
        group.client.delete_tag(first.info.run_id, key)
    outcome = litlab(*command)
    assert outcome.run_id != first.info.run_id
    assert len(group.parents) == 2


def test_a_summary_run_that_may_be_active_on_another_machine_is_not_continued(litlab, experiment, group):
    command = ["fit", experiment, "--seeds", "1", "--seed_everything", "1"]
    litlab(*command)
    theirs = group.parent.info.run_id
    group.client.set_tag(theirs, "machine.host", "elsewhere")
    group.client.update_run(theirs, status="RUNNING")
    outcome = litlab(*command)
    assert f"run {theirs} of the same seeds may be active on elsewhere" in outcome.err
    assert outcome.run_id != theirs
    assert [run.info.status for run in group.parents] == ["RUNNING", "FAILED"]


@pytest.mark.slow
def test_two_processes_cannot_train_the_same_seeds_and_a_killed_one_loses_nothing(
    litlab, start_litlab, experiment, group, tmp_path
):
    fix(experiment)
    command = ["fit", experiment, "--seeds", "2", "--model.slow", "0.2"]
    first = start_litlab(*command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        until(lambda: group.seeds_and_status == [("0", "FINISHED"), ("1", "RUNNING")])
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
    assert group.seeds_and_status == [("0", "FINISHED"), ("1", "KILLED"), ("1", "FINISHED")]
    assert group.parent.info.status == "FINISHED"


@pytest.mark.slow
def test_the_controlling_process_does_not_import_torch(experiment, tmp_path):
    program = f"{PROGRAM.rpartition(';')[0]}; print(main(), 'torch' in sys.modules)"
    command = [sys.executable, "-c", program, "fit", experiment, "--seeds", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr


@pytest.mark.slow
def test_each_seed_may_use_several_devices(experiment, group, tmp_path):
    """In a process of its own, so that the processes of further devices find the model through PYTHONPATH."""
    fix(experiment)
    ddp = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu"]
    command = [sys.executable, "-c", PROGRAM, "fit", experiment, "--seeds", "2", *ddp]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert group.seeds_and_status == [("0", "FINISHED"), ("1", "FINISHED")]
    assert group.parent.data.metrics["test/acc"] == pytest.approx(0.15)

"""`litlab decide A B`: seeds are added to two configurations until an interval tells which is better."""

import contextlib
import io
import os
import signal
import threading
import time

import pytest
import yaml
from mlflow import MlflowClient

import litlab as lab
from pipelines.cli import main
from pipelines.config.experiments import find_experiment
from pipelines.runtime.errors import UserError
from sweeps.decide.decide import decide
from sweeps.decide.sides import read_sides

SHORT = ["--trainer.max_epochs", "1", "--data.n_train", "300"]
FICKLE = """
import os
from pathlib import Path
from moody import Moody

class Fickle(Moody):
    def training_step(self, batch, i):
        if os.environ["PL_GLOBAL_SEED"] == "1" and self.score > 0.5 and not Path(__file__).with_name("fixed").exists():
            raise RuntimeError("out of luck")
        return super().training_step(batch, i)

    def validation_step(self, batch, i):
        self.log("val/acc", self.score + int(os.environ["PL_GLOBAL_SEED"]) * (self.score - 0.5) / 10)
"""


class Runs:
    """The runs of a store."""

    def __init__(self, uri):
        self.client = MlflowClient(uri)

    def of(self, experiment, **tags):
        found = self.client.get_experiment_by_name(experiment)
        order = ["attributes.start_time ASC"]
        return list(self.client.search_runs([found.experiment_id], order_by=order)) if found else []

    def seeds(self, experiment):
        """Seed and status of each training."""
        runs = [run for run in self.of(experiment) if "mlflow.parentRunId" in run.data.tags]
        return [(run.data.tags["seed"], run.info.status) for run in runs]

    def parents(self, experiment):
        return [run for run in self.of(experiment) if run.data.tags.get("litlab.parent") == "seeds"]


@pytest.fixture
def runs(uri):
    return Runs(uri)


@pytest.fixture(scope="module")
def lazy(tmp_path_factory):
    """A file of digits-mlp with a learning rate at which it learns nothing."""
    settings = yaml.safe_load(find_experiment("digits-mlp").read_text())
    settings["model"]["init_args"]["optimizer"]["init_args"]["lr"] = 1e-9
    path = tmp_path_factory.mktemp("lazy") / "lazy.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def decided(tmp_path_factory, lazy):
    """digits-mlp against one that does not learn."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('decided') / 'mlflow.db'}"
    command = ["decide", "digits-mlp", str(lazy), "--margin", "0.01", "--max_seeds", "5", "--workers", "2"]
    command += ["--tracking_uri", uri, *SHORT]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(command) == 0
    found = Runs(uri)
    found.uri, found.out, found.command = uri, out.getvalue(), command
    found.n = len(found.seeds("digits-mlp"))
    return found


def test_the_better_one_is_found_with_few_seeds_and_the_interval_is_printed(decided, lazy):
    assert f"verdict     digits-mlp is better than {lazy}" in decided.out
    assert decided.n in (3, 4, 5)
    assert f"after {decided.n} pairs of seeds" in decided.out
    expected = [(str(seed), "FINISHED") for seed in range(decided.n)]
    for experiment in ("digits-mlp", "lazy"):
        assert sorted(decided.seeds(experiment)) == expected
        (parent,) = decided.parents(experiment)
        assert parent.info.status == "FINISHED"
        assert parent.data.metrics["n"] == decided.n


def test_a_run_records_the_decision_with_the_interval_of_each_look(decided, lazy):
    run = decided.of("decisions")[0]
    assert run.info.status == "FINISHED"
    assert run.data.tags["litlab.decision"] == f"digits-mlp is better than {lazy}"
    assert run.data.params["metric"] == "selected/val/acc"
    assert (run.data.params["margin"], run.data.params["max_seeds"]) == ("0.01", "5")
    steps = [point.step for point in decided.client.get_metric_history(run.info.run_id, "difference")]
    assert steps == list(range(3, decided.n + 1))
    assert 0 < run.data.metrics["difference_low"] < run.data.metrics["difference"] < run.data.metrics["difference_high"]
    note = run.data.tags["mlflow.note.content"]
    assert all(child.info.run_id in note for child in decided.of("lazy") if "mlflow.parentRunId" in child.data.tags)


def test_the_same_command_decides_the_same_without_training(litlab, decided):
    again = litlab(*decided.command)
    assert again.code == 0, again.err
    assert again.out.splitlines()[-4:-2] == decided.out.splitlines()[-4:-2]
    assert len(decided.seeds("lazy")) == len(decided.seeds("digits-mlp")) == decided.n


def test_the_configuration_of_a_run_may_be_a_side_and_a_test_metric_says_that_it_is_a_look_at_the_test_set(
    litlab, decided
):
    of_lazy = next(run.info.run_id for run in decided.of("lazy") if "mlflow.parentRunId" in run.data.tags)
    command = [*decided.command[:2], of_lazy, *decided.command[3:], "--metric", "test/acc"]
    done = litlab(*command)
    assert done.code == 0, done.err
    assert f"digits-mlp is better than {of_lazy}" in done.out
    assert "test/acc: difference" in done.out
    assert "each look is a look at the test set. With these two, 2 configurations were evaluated on it" in done.out
    assert len(decided.seeds("lazy")) == decided.n, "its seeds are those that exist"


def test_the_function_returns_the_verdict_with_its_looks_and_runs(decided, lazy):
    decision = lab.decide(
        lazy,
        "digits-mlp",
        margin=0.01,
        max_seeds=5,
        overrides={"trainer.max_epochs": 1, "data.n_train": 300},
        tracking_uri=decided.uri,
    )
    assert (decision.verdict, decision.better, decision.n) == ("second", "digits-mlp", decided.n)
    assert decision.interval[1] < 0
    assert decision.looks["conclusion"].tolist() == ["undecided"] * (decided.n - 3) + ["lower"]
    assert [run.seed for run in decision.runs[0]] == [str(seed) for seed in range(decided.n)]
    assert decision.run.tags["litlab.decision"] == f"digits-mlp is better than {lazy}"
    assert "digits-mlp is better" in repr(decision)


def test_a_lower_loss_is_better(decided, lazy):
    decision = decide(
        ("digits-mlp", str(lazy)),
        read_sides(("digits-mlp", str(lazy)), SHORT, None),
        margin=0.01,
        max_seeds=5,
        metric="val/loss",
        tracking_uri=decided.uri,
    )
    assert decision.measure.lower_is_better
    assert decision.looks[-1].difference < 0
    assert decision.verdict in ("first", "undecided")


def test_a_metric_that_the_runs_do_not_have_is_refused_with_those_that_they_have(decided, lazy):
    options = {"margin": 0.01, "max_seeds": 5, "tracking_uri": decided.uri}
    names = "digits-mlp", str(lazy)
    with pytest.raises(UserError, match=r"--metric val/accuracy: the runs have .*did you mean val/acc\?"):
        decide(names, read_sides(names, SHORT, None), metric="val/accuracy", **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits-mlp"], "expected two experiments, YAML files or runs, got digits-mlp"),
        (["digits-mlp", "digits-convnet"], "--margin is missing"),
        (["digits-mlp", "digits-convnet", "--margin", "0"], "--margin 0: expected a number above 0"),
        (["digits-mlp", "digits-convnet", "--margin", "1", "--max_seeds", "2"], "--max_seeds 2: expected 3 to 100"),
        (["digits-mlp", "none.yaml", "--margin", "1"], "none.yaml: no such file"),
        (["digits-mlp", "nobody", "--margin", "1"], "'nobody': expected an experiment (litlab list shows them)"),
        (["digits-mlp", "digits-mlp", "--margin", "1"], "have the same configuration: there is nothing to decide"),
        (["digits-mlp", "digits-convnet", "--margin", "1", "--modle.lr", "1"], "unknown key modle.lr"),
        (["digits-mlp", "circles", "--margin", "1"], "have different test sets"),
    ],
)
def test_mistakes_are_refused_before_a_run_is_created(litlab, runs, arguments, message):
    done = litlab("decide", *arguments)
    assert done.code == 2
    assert message in done.err
    assert runs.of("digits-mlp") == runs.of("decisions") == []


@pytest.fixture
def fickle(moody, tmp_path):
    """Files of two models with accuracies 0.4 and 0.7 that depend on the seed; seed 1 of the better one fails."""
    moody({"model.score": [0.5]})
    (tmp_path / "fickle.py").write_text(FICKLE)
    settings = yaml.safe_load((tmp_path / "moody.yaml").read_text())
    settings["trainer"]["max_epochs"] = 2
    for name, score in (("dull", 0.4), ("bright", 0.7)):
        settings["model"] = {"class_path": "fickle.Fickle", "init_args": {"score": score}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    return [str(tmp_path / name) for name in ("dull.yaml", "bright.yaml")]


@pytest.mark.slow
def test_a_seed_that_fails_decides_nothing_and_the_same_command_trains_only_it(litlab, fickle, runs, tmp_path):
    command = ["decide", *fickle, "--margin", "0.01", "--max_seeds", "3"]
    failed = litlab(*command)
    assert failed.code == 1
    assert "bright, seed 1 failed: RuntimeError: out of luck" in failed.err
    assert "undecided. Seeds that are done are kept. Run the same command again to continue." in failed.err
    assert runs.of("decisions") == []
    assert runs.seeds("bright") == [("0", "FINISHED"), ("1", "FAILED"), ("2", "FINISHED")]
    assert [run.info.status for run in (*runs.parents("bright"), *runs.parents("dull"))] == ["FAILED", "FAILED"]
    (tmp_path / "fixed").touch()
    again = litlab(*command)
    assert again.code == 0, again.err
    assert f"{fickle[1]} is better than {fickle[0]}" in again.out
    assert runs.seeds("bright")[3:] == [("1", "FINISHED")]
    assert len(runs.seeds("dull")) == 3
    assert [run.data.metrics["n"] for run in (*runs.parents("bright"), *runs.parents("dull"))] == [3, 3]


@pytest.mark.slow
def test_ctrl_c_keeps_the_seeds_that_are_done_and_the_same_command_continues(litlab, fickle, runs, tmp_path):
    (tmp_path / "fixed").touch()
    command = ["decide", *fickle, "--margin", "0.01", "--max_seeds", "3", "--model.slow", "0.2"]

    def stop():
        end = time.monotonic() + 120
        while ("0", "FINISHED") not in runs.seeds("bright") and time.monotonic() < end:
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=stop)
    thread.start()
    stopped = litlab(*command)
    thread.join()
    assert stopped.code == 130
    assert "stopped. Seeds that are done are kept. Run the same command again to continue." in stopped.err
    assert "Traceback" not in stopped.err
    assert runs.of("decisions") == []
    assert not [run for name in ("dull", "bright") for run in runs.of(name) if run.info.status == "RUNNING"]
    done = [seed for seed, status in runs.seeds("bright") if status == "FINISHED"]
    assert litlab(*command).code == 0
    finished = [seed for seed, status in runs.seeds("bright") if status == "FINISHED"]
    assert finished[: len(done)] == done
    assert sorted(finished) == ["0", "1", "2"], "each seed is trained once"

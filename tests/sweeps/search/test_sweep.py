"""`litlab sweep` from end to end, without faults."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
import yaml

from pipelines.cli import main
from pipelines.tracking.measured import selected_metric

SHORT = ["--trainer.max_epochs", "2"]


@pytest.fixture(scope="module")
def searched(tmp_path_factory, results_of):
    """A study of the digits' MLP: three trials, and the best one on one fresh seed."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('searched') / 'mlflow.db'}"
    command = ["sweep", "digits-mlp", "--trials", "3", "--seeds", "1", *SHORT, "--confirm", "1", "--tracking_uri", uri]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(command) == 0
    study = results_of(uri, "digits-mlp")
    study.command, study.uri, study.out = command, uri, out.getvalue()
    return study


def test_a_study_is_a_parent_run_with_a_child_run_per_trial(searched):
    parent = searched.parent
    assert parent.info.status == "FINISHED"
    assert [run.info.status for run in searched.children()] == ["FINISHED"] * 3
    assert [run.data.tags["trial"] for run in searched.children()] == ["0", "1", "2"]
    for run in searched.runs[1:]:
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["study"] == "digits-mlp"
    for run, trial in zip(searched.children(), searched.trials, strict=True):
        assert trial.value == pytest.approx(run.data.metrics["selected/val/loss"])
        assert float(run.data.params["model.dropout"]) == pytest.approx(trial.params["model.dropout"])
        assert run.info.run_name.startswith(f"{trial.number} dropout={trial.params['model.dropout']:.4g} batch_size=")
        assert {"config.yaml", "data.json", "metrics.jsonl", "figures/learning_curves.png"} <= searched.files(run)


def test_each_trial_selects_its_epoch_by_the_metric_of_the_search(searched):
    for run in searched.runs[1:]:
        folder = Path(run.info.artifact_uri.removeprefix("file://"))
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["monitor"] == "val/loss"
        losses = [point.value for point in searched.client.get_metric_history(run.info.run_id, "val/loss")]
        assert run.data.metrics["selected/val/loss"] == min(losses)


def test_the_result_names_the_lucky_trial_and_says_what_fresh_seeds_say(searched):
    lines = searched.out.splitlines()
    text = " ".join(searched.out.split())  # a terminal wraps lines
    assert re.search(r"digits-mlp: best single trial val/loss [\d.]+, trial \d, the best of 3, so partly chance", text)
    verdict = searched.parent.data.tags["litlab.verdict"]
    assert f"On fresh seeds, the best is {verdict}" in text
    recommends = any(line.startswith("best ") for line in lines)
    assert recommends is not verdict.startswith("not better")


def test_the_parent_run_has_figures_note_and_the_best_checkpoint(searched):
    files = searched.files(searched.parent)
    figures = {f"figures/{name}.png" for name in ("history", "slice", "parallel_coordinate", "configurations")}
    assert {"trials.csv", "note.md", "space.json", "config.yaml", "checkpoints/best.ckpt", *figures} <= files
    best = min(searched.trials, key=lambda trial: trial.value)
    assert searched.parent.data.metrics["best/val/loss"] == best.value
    assert searched.parent.data.tags["best.trial"] == str(best.number)
    assert f"{best.value:.4f}" in searched.parent.data.tags["mlflow.note.content"]


def test_runs_name_the_metric_of_the_study_as_the_one_that_selected_their_epoch(searched):
    for run in searched.runs:
        assert selected_metric(run.data.metrics, run.data.tags) == "selected/val/loss"


def test_only_the_best_trial_keeps_its_checkpoints(searched):
    best = min(searched.trials, key=lambda trial: trial.value)
    keep = [run.data.tags["trial"] for run in searched.children() if "checkpoints/best.ckpt" in searched.files(run)]
    assert keep == [str(best.number)]


def test_only_the_confirmation_opens_the_test_set(searched):
    assert not [key for run in searched.children() for key in run.data.metrics if key.startswith("test/")]
    confirmed = searched.children("confirm")
    assert {run.data.tags["seed"] for run in searched.children()} == {"0"}
    assert {run.data.tags["seed"] for run in confirmed} == {"1"}, "fresh"
    assert all("test/acc" in run.data.metrics for run in confirmed)
    best = next(run for run in confirmed if run.data.tags["trial"] != "-")
    assert searched.parent.data.metrics["test/acc"] == best.data.metrics["test/acc"], "n = 1"


def test_the_same_command_again_runs_nothing(searched, capfd):
    runs = [run.info.run_id for run in searched.runs]
    assert main(searched.command) == 0
    assert [run.info.run_id for run in searched.runs] == runs
    assert len(searched.trials) == 3
    assert searched.parent.info.status == "FINISHED"


def test_status_reports_the_state_of_a_study(litlab, searched):
    outcome = litlab("sweep", "status", "digits-mlp", "--tracking_uri", searched.uri, "--json")
    status = json.loads(outcome.out)
    assert outcome.code == 0
    assert status["trials"]["complete"] == 3
    assert status["best"]["value"] == min(trial.value for trial in searched.trials)
    assert status["controller"] is None
    assert status["parent"] == searched.parent.info.run_id


def test_fit_runs_the_best_configuration(litlab, searched, tmp_path):
    outcome = litlab("sweep", "best", "digits-mlp", "--tracking_uri", searched.uri)
    (tmp_path / "best.yaml").write_text(outcome.out)
    best = min(searched.trials, key=lambda trial: trial.value)
    assert yaml.safe_load(outcome.out)["model"]["init_args"]["dropout"] == pytest.approx(best.params["model.dropout"])
    again = litlab("fit", "-c", tmp_path / "best.yaml")
    assert again.code == 0, again.err
    assert litlab("validate", searched.parent.info.run_id, "--tracking_uri", searched.uri).code == 0


def test_a_study_continues_to_a_larger_total_and_keeps_its_trials(litlab, moody, results):
    space = moody({"model.score": {"low": 0.0, "high": 1.0}}, sampler="random", trials=2)
    assert litlab("sweep", "-c", space).code == 0
    before = [(trial.params, trial.value) for trial in results.trials]
    assert litlab("sweep", "-c", space, "--trials", "4").code == 0
    after = [(trial.params, trial.value) for trial in results.trials]
    assert after[:2] == before
    assert len(after) == len(results.children()) == 4
    assert len({params["model.score"] for params, _ in after}) == 4, "the sampler does not repeat its draws"


def test_repeated_configurations_are_reported_and_not_trained_again(litlab, moody, results):
    space = moody({"model.score": [0.2, 0.6]}, sampler="random", trials=6)
    assert litlab("sweep", "-c", space, "--workers", "2").code == 0
    assert results.states == ["COMPLETE"] * 6
    assert all(trial.value == pytest.approx(trial.params["model.score"]) for trial in results.trials)
    assert len(results.children()) == len({trial.params["model.score"] for trial in results.trials})


@pytest.mark.slow
def test_keys_written_as_one_share_their_value_and_seeds_are_averaged(litlab, moody, results):
    space = moody({"model.score, model.slow": [0.0, 0.01]}, seeds=2)
    outcome = litlab("sweep", "-c", space, "--keep", "all")
    assert outcome.code == 0, outcome.err
    assert [trial.value for trial in results.trials] == pytest.approx([0.0, 0.01])
    assert [run.data.tags["seed"] for run in results.children()] == ["0", "1", "0", "1"]
    for run in results.children():
        assert run.data.params["model.score"] == run.data.params["model.slow"]
        assert "checkpoints/best.ckpt" in results.files(run), "--keep all"


@pytest.mark.slow
def test_a_sweep_that_keeps_no_checkpoint_has_none_and_tells_its_best_value(litlab, moody, results, tmp_path):
    space = moody({"model.score": [0.2, 0.6]}, confirm=1, keep="none")
    told = tmp_path / "told"
    outcome = litlab("sweep", "-c", space, "--notify", f"env > {told}")
    assert outcome.code == 0, outcome.err
    assert not [name for run in results.runs for name in results.files(run) if name.endswith(".ckpt")]
    assert "config.yaml" in results.files(results.parent)
    facts = dict(line.split("=", 1) for line in told.read_text().splitlines() if line.startswith("LITLAB_"))
    expected = {"RUN_ID": results.parent.info.run_id, "RUN_NAME": "sweep study", "EXPERIMENT": "study-sweep"}
    expected |= {"STATUS": "FINISHED", "REASON": "", "METRIC": "val/acc", "VALUE": "0.6"}
    assert {key: facts[f"LITLAB_{key}"] for key in expected} == expected
    assert "notify" not in results.parent.data.tags["litlab.command"]


def test_the_value_of_a_trial_is_the_mean_of_its_seeds(litlab, results_of, uri):
    args = ["--sampler", "random", "--seeds", "2", "--trials", "1", "--confirm", "0", "--workers", "2"]
    assert litlab("sweep", "digits-mlp", *args, "--trainer.max_epochs", "1").code == 0
    study = results_of(uri, "digits-mlp")
    values = [run.data.metrics["selected/val/loss"] for run in study.children()]
    assert len(set(values)) == 2
    assert study.trials[0].value == pytest.approx(sum(values) / 2)


def test_a_pruned_trial_is_pruned_in_optuna_and_killed_in_mlflow(litlab, moody, results):
    pruner = {"name": "median", "n_startup_trials": 1, "n_warmup_steps": 0}
    space = moody({"model.score": [0.9, 0.1]}, pruner=pruner, set={"trainer.max_epochs": 3})
    assert litlab("sweep", "-c", space).code == 0
    assert results.states == ["COMPLETE", "PRUNED"]
    _, pruned = results.children()
    assert pruned.info.status == "KILLED"
    assert pruned.data.tags["trial.state"] == "PRUNED"
    assert pruned.info.run_name == "1 (pruned) score=0.1", "the UI shows a red cross"
    assert pruned.data.tags["mlflow.runColor"] == "#8a8a8a"
    assert pruned.data.tags["litlab.reason"] == "pruned after epoch 0 (median)"
    assert pruned.data.metrics["val/acc"] == pytest.approx(0.1), "its metrics are kept"
    assert len(results.client.get_metric_history(pruned.info.run_id, "val/acc")) == 1


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"model.scor": [0.1]}, "model.scor"),
        ({"model.score": [0.1, "much"]}, "model.score"),
        ({"model.score": {"low": 0.5, "high": 1.5}}, "score must be from 0 to 1, got 1.5"),
        ({"model.slow": {"low": 1, "high": 1}}, "model.slow: the range is empty"),
    ],
    ids=["unknown key", "wrong type", "out of range", "empty range"],
)
def test_a_space_that_cannot_run_is_refused_before_the_first_trial(litlab, moody, results, space, message):
    outcome = litlab("sweep", "-c", moody(space, sampler="random", trials=2))
    assert outcome.code == 2
    assert message in outcome.err
    assert not re.search('File ".*(site-packages|pipelines|sweeps)/', outcome.err)  # only files of the user are shown
    assert not results.runs


def test_a_test_metric_is_refused(litlab, moody, results):
    outcome = litlab("sweep", "-c", moody({"model.score": [0.1]}, metric="test/acc"))
    assert outcome.code == 2
    assert "the test set stays closed" in outcome.err
    assert not results.runs


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_metric_that_is_not_logged_is_refused_and_leaves_nothing_running(litlab, moody, results, workers):
    outcome = litlab("sweep", "-c", moody({"model.score": [0.1, 0.2]}, metric="val/f1"), "--workers", workers)
    assert outcome.code == 2
    assert "metric val/f1: the experiment logs val/acc" in outcome.err
    assert "RUNNING" not in [run.info.status for run in results.runs]
    assert not results.counted
    assert "RUNNING" not in [trial.state.name for trial in results.trials]
    assert litlab("sweep", "-c", moody({"model.score": [0.1, 0.2]})).code == 0, "a corrected space may use the name"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model.score", "0.3"], "--model.score is searched by space study"),
        (["--seed_everything", "3"], "set their number with --seeds"),
        (["--name", "mine"], "name the study with --study"),
        (["--trails", "3"], "did you mean --trials?"),
        (["--pruner", "percentile"], "needs percentile; set it in the space file"),
        (["--trainer.devices", "0"], "trainer"),
        (["--trainer.max_epochs", "0"], "must not be 0"),
    ],
)
def test_wrong_options_are_refused_before_the_first_trial(litlab, moody, results, args, message):
    outcome = litlab("sweep", "-c", moody({"model.score": [0.4, 0.8]}), *args)
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert results.children() == []


def test_a_range_whose_steps_the_key_does_not_accept_is_refused(litlab, moody, results):
    space = moody({"data.batch_size": {"low": 100, "high": 300, "step": 0.5}}, sampler="random", trials=2)
    outcome = litlab("sweep", "-c", space)
    assert outcome.code == 2
    assert "data.batch_size" in outcome.err
    assert results.children() == []


def test_the_command_line_overrides_what_the_file_sets(litlab, moody, results):
    space = moody({"model.score": [0.4]}, set={"trainer.max_epochs": 1})
    assert litlab("sweep", "-c", space, "--trainer.max_epochs", "2").code == 0
    assert [run.data.params["trainer.max_epochs"] for run in results.children()] == ["2"]

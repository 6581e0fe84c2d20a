"""`litlab fit --if_needed` and `--from RUN`: an equal run is shown, and another run's configuration is changed."""

import json

import pytest
import yaml

from pipelines.tracking.run import Run
from pipelines.tracking.source_code import same_code
from pipelines.tracking.store import Store
from pipelines.tracking.tags import FROM_TAG, PARENT_RUN_TAG
from tests.git_repository import make_repository

pytestmark = pytest.mark.usefixtures("tables")
FIT = ("fit", "digits-mlp", "--trainer.max_epochs=1")


def all_runs(uri):
    store = Store(uri)
    return store.search(list(store.experiment_names()), "", ("attributes.start_time DESC",))


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A repository of the user with a file, as current folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "net.py").write_text("layers = 2\n")
    make_repository(folder)
    monkeypatch.chdir(folder)
    return folder


def test_an_equal_finished_run_is_shown_and_anything_else_is_trained(litlab, uri, work):
    first = litlab(*FIT)
    again = litlab(*FIT, "--if_needed")
    assert again.code == 0
    assert f"litlab: not trained: run {first.run_id} is equal (same configuration, seed 0, data, and code" in again.err
    assert f"run                  {first.run_id}" in again.out
    assert "test/acc" in again.out
    equal = litlab(*FIT, "--if_needed", "--model.dropout", "0.2", "--note", "a label changes nothing")
    assert f"run {first.run_id} is equal" in equal.err
    assert len(all_runs(uri)) == 1
    changes = [["--seed_everything=1"], ["--model.dropout=0.1", "--data.n_train=500"]]
    for number, change in enumerate(changes, 2):
        outcome = litlab(*FIT, *change, "--if_needed")
        assert (outcome.code, len(all_runs(uri))) == (0, number)
        assert "not trained" not in outcome.err
    (work / "net.py").write_text("layers = 3\n")
    changed = litlab(*FIT, "--if_needed")
    assert "not trained" not in changed.err
    assert f"run {changed.run_id} is equal" in litlab(*FIT, "--if_needed").err


@pytest.mark.slow
def test_a_run_that_failed_or_starts_from_a_checkpoint_file_is_not_equal(litlab, uri, tmp_path):
    failed = litlab(*FIT, "--model.optimizer.lr=1e30")
    assert failed.code == 1
    (run,) = all_runs(uri)
    assert run.status == "FAILED"
    assert litlab(*FIT, "--model.optimizer.lr=1e30", "--if_needed").code == 1
    first = litlab(*FIT)
    folder = Store(uri).find(first.run_id).folder
    weights = ["--weights", str(folder / "checkpoints" / "best.ckpt")]
    assert litlab(*FIT, *weights).code == 0
    assert "not trained" not in litlab(*FIT, *weights, "--if_needed").err
    by_run = ["--weights", first.run_id]
    second = litlab(*FIT, *by_run)
    assert f"run {second.run_id} is equal" in litlab(*FIT, *by_run, "--if_needed").err


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (
            {"git.commit": "a", "git.dirty": "false"},
            {"git.commit": "a", "git.dirty": "false", "git.diff": "none"},
            True,
        ),
        ({"git.commit": "a", "git.dirty": "true"}, {"git.commit": "a", "git.dirty": "true"}, False),
        ({"git.commit": "a", "git.diff": "1"}, {"git.commit": "a", "git.diff": "1"}, True),
        ({"git.commit": "a", "git.diff": "1"}, {"git.commit": "a", "git.diff": "2"}, False),
        ({"git.commit": "a", "git.diff": "none"}, {"git.commit": "b", "git.diff": "none"}, False),
        ({"git.commit": "a", "git.dirty": "true", "git.diff": "none"}, {"git.commit": "a", "git.diff": "none"}, True),
        ({"git.commit": "a", "git.diff": "1", "resumed.git.diff": "2"}, {"git.commit": "a", "git.diff": "1"}, False),
        ({"git.folder.commit": "a", "git.folder.diff": "1"}, {"git.folder.commit": "a", "git.folder.diff": "1"}, True),
        ({"git.commit": "a", "git.diff": "1"}, {"git.commit": "a", "git.diff": "1", "git.folder.commit": "b"}, False),
        ({}, {}, False),
    ],
)
def test_code_is_equal_if_commits_and_changes_are_known_to_be(one, other, equal):
    assert same_code(one, other) == equal
    assert same_code(other, one) == equal


def test_a_new_run_has_the_configuration_of_another_one_with_changes(litlab, uri):
    first = litlab(*FIT, "--model.dropout=0.4", "--data.n_train=300", "--seed_everything=3", "--run_name=origin")
    second = litlab("fit", "--from", "origin", "--model.dropout", "0.2")
    assert second.code == 0
    one, other = (Store(uri).find(run.run_id) for run in (first, second))
    assert other.tags[FROM_TAG] == first.run_id
    assert other.tags["litlab.command"] == f"litlab fit --from {first.run_id} --model.dropout 0.2"
    assert (other.seed, other.experiment) == ("3", "digits-mlp")
    assert other.name == f"dropout=0.2 seed=3 from {first.run_id[:8]}"
    different = {key for key in one.params | other.params if one.params.get(key) != other.params.get(key)}
    assert different == {"model.dropout"}
    assert f"from                 {first.run_id}" in litlab("show", second.run_id).out
    assert "not trained" in litlab("fit", "--from", first.run_id[:8], "--model.dropout=0.2", "--if_needed").err


def test_a_run_of_a_config_file_and_with_more_files_on_top(litlab, uri, tmp_path):
    own, more = tmp_path / "own.yaml", tmp_path / "more.yaml"
    data, model = "tests.fixtures.strangers.loggers.Data", "tests.fixtures.strangers.loggers.Plain"
    trainer = {"max_epochs": 1, "accelerator": "cpu", "log_every_n_steps": 1, "enable_progress_bar": False}
    own.write_text(yaml.safe_dump({"data": data, "model": model, "trainer": trainer}))
    more.write_text(yaml.safe_dump({"trainer": {"max_epochs": 2}}))
    first = litlab("fit", "-c", own)
    second = litlab("fit", "--from", first.run_id, "-c", more)
    assert (second.code, Store(uri).find(second.run_id).params["trainer.max_epochs"]) == (0, "2")


@pytest.mark.slow
def test_several_seeds_of_the_configuration_of_a_run(litlab, uri):
    first = litlab(*FIT, "--model.dropout=0.4", "--seed_everything=5")
    outcome = litlab("fit", "--from", first.run_id, "--seeds", "2", "--data.n_train=300")
    assert outcome.code == 0
    children = [run for run in all_runs(uri) if PARENT_RUN_TAG in run.tags]
    assert sorted(run.seed for run in children) == ["5", "6"]
    assert {(run.params["model.dropout"], run.params["data.n_train"]) for run in children} == {("0.4", "300")}
    assert {run.tags[FROM_TAG] for run in children} == {first.run_id}
    (summary,) = {run.tags[PARENT_RUN_TAG] for run in children}
    refused = litlab("fit", "--from", summary)
    assert (refused.code, f"name one, such as {children[-1].run_id}" in refused.err) == (2, True), refused.err
    shown = json.loads(litlab("diff", summary, children[0].run_id, "--format", "json").out)
    assert shown["configuration"].keys() == {"seeds", "seed_everything"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--from", "nothing"], "there is no run 'nothing'"),
        (["--from", "nothing", "--modle.dropout=1"], "did you mean model.dropout"),
        (["digits-mlp", "--from", "latest"], "unexpected argument 'digits-mlp'"),
        (["digits-mlp", "--seeds=2", "--if_needed"], "--if_needed is for one run"),
        (["--from", "nothing", "--seeds=2"], "there is no run 'nothing'"),
    ],
)
def test_mistakes_are_refused(litlab, args, message):
    outcome = litlab("fit", *args)
    assert (outcome.code, message in outcome.err) == (2, True), outcome.err


def test_a_run_without_a_configuration_is_refused(litlab, uri):
    run = Run(Store(), "empty", "empty", {})
    run.finish("FINISHED")
    outcome = litlab("fit", "--from", run.run_id)
    assert (outcome.code, "has no config.yaml" in outcome.err) == (2, True)

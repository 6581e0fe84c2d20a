"""`litlab tune`: the suggested learning rate or batch size, its run, and the command that uses it."""

import shlex

import pytest
from mlflow import MlflowClient

from pipelines.runtime.errors import UserError
from pipelines.training.tune import find_key, steepest, tune

pytestmark = pytest.mark.usefixtures("garbage_of_earlier_files_stays")
CLASSES = "tests.fixtures.strangers.classes"


@pytest.fixture
def stranger(tmp_path):
    path = tmp_path / "it.yaml"
    path.write_text(f"data: {{class_path: {CLASSES}.Points}}\nmodel: {{class_path: {CLASSES}.Net}}\n")
    return ["-c", str(path), "--trainer.accelerator", "cpu"]


@pytest.mark.parametrize(("experiment", "key"), [("digits-mlp", "model.optimizer.lr"), (None, "model.lr")])
def test_a_learning_rate_is_suggested_and_its_curve_is_one_run(uri, tables, tmp_path, stranger, experiment, key):
    found = tune("lr", experiment, [] if experiment else stranger)
    assert found.key == key
    assert 1e-6 < found.value < 1
    client = MlflowClient(uri)
    run = client.get_run(found.run_id)
    assert run.data.metrics["suggestion"] == pytest.approx(found.value, rel=0.01)
    assert run.data.tags["mlflow.source.name"].endswith(found.experiment.removesuffix("-tune"))
    assert len(client.get_metric_history(found.run_id, "loss")) > 10
    assert [file.path for file in client.list_artifacts(found.run_id, "figures")]
    assert client.get_experiment_by_name(found.experiment).experiment_id == run.info.experiment_id
    assert not list(tmp_path.glob(".lr_find*"))


def test_the_printed_command_trains_with_the_suggestion(litlab, tables, stranger):
    outcome = litlab("tune", "lr", *stranger)
    assert outcome.code == 0
    (command,) = (line for line in outcome.out.splitlines() if line.startswith("to use it"))
    words = shlex.split(command.removeprefix("to use it"))
    assert words[:2] == ["litlab", "fit"]
    assert words[-2] == "--model.lr"
    assert litlab("fit", *words[2:], "--trainer.max_epochs", "1").code == 0


@pytest.mark.slow
def test_a_search_for_a_learning_rate_has_no_bar_without_a_terminal_or_if_it_is_switched_off(
    litlab, tables, stranger, monkeypatch
):
    search = ["--trainer.callbacks+=LearningRateFinder", "--trainer.callbacks.num_training_steps=12"]
    off = "--trainer.enable_progress_bar=false"
    for command in (["tune", "lr", "--steps=20", *stranger], ["fit", *stranger, *search, "--trainer.max_epochs=1"]):
        assert "Finding best initial lr" not in litlab(*command).err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert "Finding best initial lr" in litlab("tune", "lr", "--steps=20", *stranger).err
    for command in (["tune", "lr", "--steps=20", *stranger], ["fit", *stranger, *search, "--trainer.max_epochs=1"]):
        assert "Finding best initial lr" not in litlab(*command, off).err


def test_a_batch_size_is_suggested(tables, stranger):
    found = tune("batch_size", overrides=stranger)
    assert (found.key, found.value) == ("data.batch_size", 32)
    assert found.command.endswith("--data.batch_size 32")


def test_the_search_is_not_ended_by_the_epochs_of_the_configuration(uri, tables, stranger):
    found = tune("lr", None, [*stranger, "--trainer.max_epochs", "1"])
    assert len(MlflowClient(uri).get_metric_history(found.run_id, "loss")) > 50


@pytest.mark.slow
def test_a_batch_size_is_suggested_where_the_schedule_needs_the_number_of_steps(tables):
    args = ["--model.lr_scheduler", "modules.schedules.OneCycle"]
    assert tune("batch_size", "digits-mlp", args, high=64).value == 64


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("digits-mlp", "name what to tune first"),
        ("lr digits-mlp --key model.nope", "--key model.nope: there is no such key; the keys are model.optimizer.lr"),
        ("lr digits-mpl", "Did you mean digits-mlp"),
        ("lr digits-mlp --steps 5", "5 steps are too few"),
        ("lr digits-mlp --min 2", "must be positive and below --max 1"),
        ("lr digits-mlp --model.dropout 2", "model.dropout is 2.0"),
    ],
)
def test_a_mistake_is_named(litlab, args, says):
    outcome = litlab("tune", *args.split())
    assert outcome.code == 2
    assert says in outcome.err.splitlines()[-1]


def test_the_key_is_found_among_those_of_model_and_data():
    assert find_key("lr", {"model.net.lr": 1, "trainer.lr": 2}) == "model.net.lr"
    assert find_key("batch_size", {"data.batch_size": 1, "model.batch_size": 2}) == "data.batch_size"
    with pytest.raises(UserError, match=r"it could be model.a.lr or model.b.lr"):
        find_key("lr", {"model.a.lr": 1, "model.b.lr": 2})
    assert find_key("lr", {"model.a.lr": 1, "model.b.lr": 2}, "model.b.lr") == "model.b.lr"


def test_the_steepest_fall_is_judged_by_the_logarithm_of_the_rate():
    rates = [10 ** (-8 + index / 4) for index in range(33)]
    losses = [2.0 - 0.001 * index for index in range(20)] + [1.5, 1.0, 0.8] + [0.8] * 10
    assert 10**-3.5 < steepest(list(zip(rates, losses, strict=True))) < 10**-2.5

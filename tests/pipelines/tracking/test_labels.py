"""Tags, note and name that a user gives a run: what is refused, where they are, and that they change nothing."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.runtime.errors import UserError
from pipelines.tracking import tags
from pipelines.tracking.labels import Labels

SHORT = ["digits-mlp", "--trainer.max_epochs", "1"]
NOTE = "Why: the *first* try.\nSecond line."


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("purpose", "--tag purpose: write KEY=VALUE, such as --tag purpose=thesis"),
        ("=thesis", "--tag =thesis: write KEY=VALUE"),
        ("purpose=", "write KEY=VALUE"),
        ("litlab.command=x", "--tag litlab.command: litlab or MLflow sets this tag itself; choose another key"),
        ("mlflow.user=me", "--tag mlflow.user: litlab or MLflow sets"),
        ("mlflow.runName=x", "use --run_name"),
        ("mlflow.note.content=x", "use --note"),
        ("seed=3", "--tag seed: litlab or MLflow sets"),
        ("study=3", "--tag study: litlab or MLflow sets"),
        ("best.run=3", "--tag best.run: litlab or MLflow sets"),
        ("data.sha256.train=3", "--tag data.sha256.train: litlab or MLflow sets"),
        ("a$b=3", "--tag a$b: a key of a tag has only letters"),
        (f"{'k' * 251}=1", "at most 250 characters"),
        (f"k={'v' * 5001}", "--tag k: the value has 5001 characters, at most 5000 are allowed"),
    ],
)
def test_a_tag_that_is_not_the_users_to_set_is_refused_by_name(given, message):
    with pytest.raises(UserError) as refused:
        Labels.parse([given])
    assert message in str(refused.value)


def test_every_tag_that_litlab_writes_is_reserved_and_others_are_not():
    named = {value for name, value in vars(tags).items() if name.endswith("_TAG") and isinstance(value, str)}
    assert all(tags.is_reserved(name) for name in named - {tags.VERSION_TAG})
    assert tags.is_reserved(f"{tags.VERSION_TAG}.torch")
    assert not any(map(tags.is_reserved, ("purpose", "version", "seeds", "course/week", "gitlab", "trialled")))


def test_a_value_may_contain_equals_signs_and_a_later_tag_wins():
    assert Labels.parse(["a=b=c", "d=1", "d=2"]).tags == {"a": "b=c", "d": "2"}
    assert Labels.parse(["a=b"], "why", "n").as_arguments() == ["--tag=a=b", "--note=why", "--run_name=n"]


@pytest.mark.parametrize(("options", "message"), [(["", "n"], "--note: expected 1"), (["n", " "], "--run_name: exp")])
def test_an_empty_note_or_name_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        Labels.parse([], *options)


@pytest.mark.parametrize(
    "verb", [["fit", "digits-mlp"], ["fit", "digits-mlp", "--seeds", "2"], ["sweep", "digits-mlp"]]
)
def test_a_refused_label_exits_with_2_before_anything_is_written(litlab, tmp_path, verb):
    outcome = litlab(*verb, "--tag", "litlab.study=x")
    assert outcome.code == 2
    assert "litlab: --tag litlab.study: litlab or MLflow sets this tag itself" in outcome.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_labels_are_recorded_kept_by_resume_and_change_neither_hash_nor_params_nor_files(litlab, uri):
    client = MlflowClient(uri)
    labels = ["--tag", "purpose=thesis", "--tag=week=3", "--note", NOTE, "--run_name", "my try"]
    fitted = litlab("fit", *labels, *SHORT)
    plain = client.get_run(litlab("fit", *SHORT).run_id)
    labelled = client.get_run(fitted.run_id)

    def check(run):
        assert run.info.run_name == "my try"
        assert run.data.tags[tags.NOTE_TAG] == NOTE
        assert (run.data.tags["purpose"], run.data.tags["week"]) == ("thesis", "3")
        assert run.data.params == plain.data.params
        assert run.data.tags[tags.CONFIG_HASH_TAG] == plain.data.tags[tags.CONFIG_HASH_TAG]
        assert run.data.metrics["selected/val/loss"] == plain.data.metrics["selected/val/loss"]

    check(labelled)
    experiment = client.get_experiment_by_name("digits-mlp")
    assert experiment.tags[tags.NOTE_TAG].startswith("A small MLP"), "its own description, not the note of a run"
    assert labelled.data.tags[tags.COMMAND_TAG].startswith("litlab fit digits-mlp --trainer.max_epochs 1 --tag=purpose")
    saved = [Path(client.download_artifacts(run.info.run_id, "config.yaml")) for run in (plain, labelled)]
    assert saved[0].read_text() == saved[1].read_text()
    assert "a later run has the same configuration and seed" in litlab("compare", "digits-mlp").err
    client.set_terminated(fitted.run_id, "KILLED")
    assert litlab("resume", fitted.run_id).code == 0
    check(client.get_run(fitted.run_id))
    assert fitted.run_id in litlab("show", "my try").out


@pytest.mark.slow
def test_seeds_have_the_tags_and_their_summary_run_has_note_and_name_too(litlab, uri):
    labels = ["--tag", "purpose=thesis", "--note", NOTE, "--run_name", "three tries"]
    outcome = litlab("fit", *SHORT, "--seeds", "2", "--workers", "2", *labels)
    assert outcome.code == 0, outcome.err
    client = MlflowClient(uri)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(ids, "tags.purpose = 'thesis'")
    [parent] = [run for run in runs if tags.PARENT_TAG in run.data.tags]
    assert len(runs) == 3
    assert parent.info.run_name == "three tries"
    note = parent.data.tags[tags.NOTE_TAG]
    assert note.startswith(NOTE)
    assert "2 of 2 seeds (0 to 1) are done" in note
    assert "edited" not in outcome.err
    assert {run.info.run_name for run in runs} == {"three tries", "seed=0 max_epochs=1", "seed=1 max_epochs=1"}

"""A value of a space that the experiment refuses is told with its key and the file, before anything is trained."""

import pytest

from pipelines.tracking.uri import folder_of

CLASSES = "tests.fixtures.strangers.classes"
OWN = f"data: {{class_path: {CLASSES}.Points}}\nmodel: {{class_path: {CLASSES}.Sized}}\n"


@pytest.fixture
def refuse(litlab, tmp_path, uri):
    """Return a function that sweeps a space, which is refused, and returns the message."""
    own, path = tmp_path / "own.yaml", tmp_path / "it.yaml"
    own.write_text(OWN)

    def refuse(text):
        path.write_text(text.replace("OWN", str(own)))
        outcome = litlab("sweep", path, "--sampler", "grid")
        assert outcome.code == 2
        assert [file.name for file in folder_of(uri).iterdir()] == ["mlflow.db"], "it was there, nothing was created"
        return outcome.err.replace(str(path), "FILE")

    return refuse


def test_a_value_that_litlab_refuses_is_told_with_key_and_file(refuse):
    told = refuse("experiment: digits-mlp\nspace: {data.batch_size: [10], model.dropout: [0.5, 1.5]}")
    assert told == ("litlab: FILE: space: model.dropout 1.5: model.dropout is 1.5; it must be at least 0 and below 1\n")


def test_a_value_that_a_users_file_refuses_is_told_with_key_and_file(refuse):
    told = refuse("experiment: OWN\nmetric: val/loss\nspace: {model.hidden: [4, -1]}")
    assert "litlab: FILE: space: model.hidden -1: RuntimeError: " in told
    assert "classes.py" in told


def test_a_fixed_value_is_told_with_the_file_and_not_as_one_of_the_space(refuse):
    told = refuse("experiment: digits-mlp\nset: {model.dropout: 2.0}\nspace: {data.batch_size: [10, 20]}")
    assert told == "litlab: FILE: set: model.dropout is 2.0; it must be at least 0 and below 1\n"


def test_a_mistake_in_the_experiment_is_told_with_its_name(refuse):
    told = refuse("experiment: digits-mlp\nset: {data.fraction: 1}\nspace: {model.dropout: [0.1]}")
    assert told.startswith("litlab: digits-mlp: unknown key data.fraction")

"""Commands that only read runs do not create a database; they say where there is none."""

import pytest

import litlab as lab
from pipelines.runtime.errors import UserError

NONE_YET = "no runs in {}: there is no mlflow.db yet, which the first run creates"
VERBS = (
    "runs digits-mlp",
    "show latest",
    "test latest",
    "predict latest",
    "resume latest",
    "stop digits-mlp",
    "rm 0123abcd --yes",
    "register 0123abcd a-name",
    "copy latest --to sqlite:///other.db",
    "explain saliency latest",
    "fit --from 0123abcd",
)


@pytest.mark.parametrize("words", VERBS)
def test_a_verb_says_that_there_are_no_runs_and_where(litlab, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    outcome = litlab(*words.split())
    assert outcome.code == 2
    assert outcome.err == f"litlab: {NONE_YET.format(tmp_path / 'runs')}\n"
    assert not (tmp_path / "runs").exists()


def test_a_list_of_no_runs_is_empty(litlab, tmp_path):
    outcome = litlab("runs")
    assert (outcome.code, outcome.out) == (0, f"no runs in sqlite:///{tmp_path / 'runs' / 'mlflow.db'}\n")
    assert litlab("runs", "--format", "json").out == "[]\n"
    assert lab.runs().empty
    with pytest.raises(UserError, match="no runs in"):
        lab.load("latest")
    assert not (tmp_path / "runs").exists()


def test_a_study_that_does_not_exist_creates_no_database(litlab, tmp_path):
    for verb in ("status", "best"):
        assert "there is no study yet" in litlab("sweep", verb, "digits-mlp").err
    assert not (tmp_path / "runs" / "mlflow.db").exists()

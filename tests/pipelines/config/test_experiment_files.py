"""Experiments that are not found: what the message says."""

import pytest

from pipelines.config.cli import parse_config
from pipelines.config.experiments import find_experiment
from pipelines.runtime.errors import UserError

LINEAR = "{data: {class_path: datamodules.digits.Digits}, model: {class_path: modules.linear.LinearClassifier}}"


def test_an_experiment_above_a_folder_without_a_project_is_named_with_what_makes_it_one(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").write_text(LINEAR)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    with pytest.raises(UserError, match=rf"a pyproject\.toml in {tmp_path} makes that folder one"):
        find_experiment("mine")
    (tmp_path / "pyproject.toml").touch()
    assert find_experiment("mine") == tmp_path / "experiments" / "mine.yaml"


@pytest.mark.parametrize("key", ["lr", "learning_rate"])
def test_a_learning_rate_of_a_model_that_has_an_optimizer_is_that_of_the_optimizer(tmp_path, key):
    (tmp_path / "linear.yaml").write_text(LINEAR)
    with pytest.raises(UserError, match=r"did you mean model\.optimizer\.lr\?"):
        parse_config("fit", ["-c", str(tmp_path / "linear.yaml"), f"--model.{key}", "0.1"])

"""`litlab new`: every template trains, sweeps and passes its test at once, as a user calls them."""

import subprocess
import sys

import pytest

from pipelines.cli import main
from tests.warm import COMMAND


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "template", ["image", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tabular", "blank"))]
)
def test_a_new_project_trains_sweeps_and_passes_its_test(template, folder, monkeypatch, run_python):
    name = f"New-{template} project"
    assert main(["new", name, "--template", template]) == 0
    monkeypatch.chdir(folder / name)
    assert not [path for path in (folder / name).rglob("*") if path.is_file() and "my_project" in path.read_text()]
    folds = ["--folds", "2"] if template == "tabular" else []
    for command in (["fit", name, *folds], ["sweep", name, "--trials", "2", "--confirm", "0"]):
        outcome = run_python(COMMAND, *command, "--trainer.max_epochs", "1")
        assert outcome.code == 0, outcome.err
    assert (folder / name / "mlflow.db").is_file()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1st", "cannot be the name of a project"),
        ("torch", "Python has a package torch already"),
        ("modules", "Python has a package modules already"),
        ("full", "full: exists and is not an empty folder"),
    ],
)
def test_a_folder_that_cannot_be_a_project_is_refused_and_left_as_it_is(name, message, folder, capfd):
    (folder / "full").mkdir()
    (folder / "full" / "note.txt").write_text("mine")
    before = sorted(folder.rglob("*"))
    assert main(["new", name]) == 2
    assert message in capfd.readouterr().err
    assert sorted(folder.rglob("*")) == before


def test_an_unknown_template_is_refused_with_those_that_exist(capfd):
    assert main(["new", "mine", "--template", "video"]) == 2
    assert "image" in capfd.readouterr().err

"""The projects of examples/, copied to another folder: the commands of each README, as a user would call them."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import litlab as lab
from tests.warm import COMMAND

EXAMPLES = Path(__file__).parents[2] / "examples"
SHORT_SWEEP = ["--trials", "2", "--confirm", "0", "--trainer.max_epochs", "1"]
SCRIPT = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
PROJECTS = {"own-classes", "images-in-folders", "table-regression"}


@pytest.fixture
def copied(tmp_path, monkeypatch, empty_store):
    """Return a function that copies an example; its runs go to its own database, whose tables are there."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")

    def copy(name):
        folder = tmp_path / name
        made = shutil.ignore_patterns("__pycache__", "mlflow.db*", "optuna.db*", "mlartifacts", "mlruns", "my_images")
        shutil.copytree(EXAMPLES / name, folder, ignore=made)
        shutil.copy(empty_store, folder / "mlflow.db")
        return folder

    return copy


@pytest.fixture
def follow_readme(run_python):
    """Return a function that calls the commands of a folder's README and returns the output of each; sweeps are short.

    Processes are forked, see tests/warm.py.
    """

    def follow(folder):
        outputs = {}
        for program, *arguments in commands(folder):
            sweep = SHORT_SWEEP if arguments[0] == "sweep" else []
            done = run_python(COMMAND if program == "litlab" else SCRIPT, *arguments, *sweep, cwd=folder)
            assert done.code == 0, done.err
            outputs[shlex.join([program, *arguments])] = done.out
        return outputs

    return follow


def commands(folder: Path) -> list[list[str]]:
    blocks = re.findall(r"^```\n(.*?)^```", (folder / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    return [shlex.split(line, comments=True) for line in "".join(blocks).splitlines()]


def runs(folder: Path, name: str):
    return lab.runs(name, tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


def test_each_example_is_in_the_table_and_has_a_short_readme():
    folders = {path.parent.name for path in EXAMPLES.glob("*/README.md")}
    assert folders == {*PROJECTS, "from-lightning"}
    table = (EXAMPLES / "README.md").read_text()
    for name in folders:
        assert f"]({name}/README.md)" in table
        assert len((EXAMPLES / name / "README.md").read_text().splitlines()) <= 20


@pytest.mark.parametrize("name", ["own-classes", "table-regression"])
def test_nothing_in_plain_lightning_imports_litlab(name):
    sources = "".join(path.read_text() for path in (EXAMPLES / name).rglob("*.py"))
    assert "LightningModule" in sources
    assert not re.search(r"^(import|from) (litlab|pipelines|sweeps)", sources, flags=re.MULTILINE)


def test_own_classes_in_folders_with_litlabs_names(copied, follow_readme):
    folder = copied("own-classes")
    outputs = follow_readme(folder)
    assert "trial   1  complete  val_accuracy" in outputs["litlab sweep waves"]
    assert "test_accuracy of waves: 2 rows, higher is better" in outputs["litlab compare waves"]
    assert (runs(folder, "waves").status == "FINISHED").all()
    assert runs(folder, "waves").test.min() > 0.6  # a third by chance


@pytest.mark.slow
def test_images_in_folders_with_a_published_network(copied, follow_readme):
    folder = copied("images-in-folders")
    outputs = follow_readme(folder)
    assert "trial   1  complete  val/loss" in outputs["litlab sweep my-images"]
    assert "test/acc of my-images: 1 row" in outputs["litlab compare my-images"]
    predicted = outputs["litlab predict best:my-images my_images/3/0000.png"]
    assert re.search(r"^my_images/3/0000.png,\d,0\.\d+$", predicted, flags=re.MULTILINE)
    assert runs(folder, "my-images").test.min() > 0.5  # a tenth by chance


@pytest.mark.slow
def test_regression_on_a_table(copied, follow_readme):
    folder = copied("table-regression")
    outputs = follow_readme(folder)
    assert "trial   1  complete  val_rmse" in outputs["litlab sweep diabetes"]
    assert "test_rmse of diabetes: 2 rows, lower is better" in outputs["litlab compare diabetes"]
    assert runs(folder, "diabetes").test.max() < 70  # the standard deviation of the target is 77


def test_a_lightning_script_and_the_same_one_in_litlab_run_in_one_experiment(copied, run_python):
    folder = copied("from-lightning")
    before = run_python(SCRIPT, "train.py", cwd=folder)
    assert before.code == 0, before.err
    subprocess.run(["git", "apply", "litlab.diff"], check=True, cwd=folder)
    changed = re.findall(r"^([+-])(?![+-]{2})", (folder / "litlab.diff").read_text(), flags=re.MULTILINE)
    assert changed.count("+") < changed.count("-") < 10
    after = run_python(SCRIPT, "train.py", cwd=folder)
    assert after.code == 0, after.err
    table = runs(folder, "digits")
    assert table.status.to_list() == ["FINISHED", "FINISHED"]
    of_litlab, of_lightning = table["metrics.test_acc"]
    assert min(of_litlab, of_lightning) > 0.9
    assert table.selected.notna().to_list() == [True, False]


def test_the_readme_of_the_script_has_the_commands_of_the_test():
    assert commands(EXAMPLES / "from-lightning")[:3] == [
        ["python", "train.py"],
        ["git", "apply", "litlab.diff"],
        ["python", "train.py"],
    ]

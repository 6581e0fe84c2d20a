"""The README tells the truth."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli import VERBS
from pipelines.config.experiments import experiment_names

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^litlab (\S+)(?: (\S+))?", README, flags=re.MULTILINE)


def test_the_commands_that_are_printed_exist():
    assert len(COMMANDS) > 8
    for verb, argument in COMMANDS:
        assert verb in VERBS
        if verb == "fit" and not argument.startswith("-"):
            assert argument in experiment_names()


def test_links_and_pictures_lead_somewhere():
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert len(targets) >= 4
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_map_names_every_file_of_the_rooms():
    tree = README.partition("## The map")[2]
    rooms = ("datamodules", "modules", "pipelines", "sweeps")
    files = [path.name for room in rooms for path in (ROOT / room).glob("*.py") if path.name != "__init__.py"]
    assert [name for name in files if name not in tree] == []


@pytest.mark.parametrize("number", [0, 1], ids=["the logged model", "the notebook"])
def test_the_python_that_is_printed_runs(litlab, tmp_path, number):
    run_id = litlab("fit", "digits-mlp", "--trainer.max_epochs", "1").run_id if number == 0 else ""
    block = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)[number].replace("RUN_ID", run_id)
    folder = tmp_path / "runs" if number == 0 else tmp_path  # where mlflow.db is
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", block], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

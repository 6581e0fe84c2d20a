"""The commands, links, code and map of the README and the guide are correct."""

import re
from pathlib import Path

import pytest

from pipelines.cli import VERBS
from pipelines.config.experiments import experiment_names

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "docs/GUIDE.md", "docs/CLASSES.md", "docs/DATA.md")]
LINKING = [*PAGES[:2], *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")]
GUIDE = (ROOT / "docs/GUIDE.md").read_text()
COMMANDS = [
    command
    for page in PAGES
    for command in re.findall(r"^litlab (\S+)(?: (\S+))?", page.read_text(), flags=re.MULTILINE)
]


def test_the_commands_exist():
    assert len(COMMANDS) > 8
    for verb, argument in COMMANDS:
        assert verb in VERBS
        if verb == "fit" and not argument.startswith("-"):
            assert argument in experiment_names()


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_exist(page):
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in target]
    assert [target for target in targets if not has_target(page, target)] == []


def has_target(page, target):
    """Return whether a link's file exists, and the heading in it that the link names."""
    name, _, anchor = target.partition("#")
    path = page.parent / name if name else page
    if not anchor:
        return path.exists()
    headings = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE) if path.is_file() else []
    return anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_map_names_every_room_and_every_file_of_modules_and_datamodules():
    tree = (ROOT / "CONTRIBUTING.md").read_text().partition("## Layout")[2]
    files = [path.name for name in ("datamodules", "modules") for path in (ROOT / name).glob("*.py")]
    rooms = [
        f"  {path.parent.name}/ " for package in ("pipelines", "sweeps") for path in (ROOT / package).glob("*/*.py")
    ]
    assert [name for name in {*files, *rooms} - {"__init__.py"} if name not in tree] == []


@pytest.mark.parametrize(
    "number",
    [pytest.param(0, marks=pytest.mark.slow), 1, 2],
    ids=["the logged model", "the notebook", "the classes"],
)
def test_the_python_code_in_the_guide_runs(litlab, run_python, tmp_path, number):
    run_id = litlab("fit", "digits-mlp", "--trainer.max_epochs", "1").run_id if number == 0 else ""
    block = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)[number]
    block = block.replace("RUN_ID/EXPERIMENT", f"{run_id}/digits-mlp").replace("RUN_ID", run_id)
    folder = tmp_path / "runs" if number == 0 else tmp_path  # where mlflow.db is
    done = run_python(block, cwd=folder)
    assert done.code == 0, done.err

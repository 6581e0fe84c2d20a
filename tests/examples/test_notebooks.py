"""The notebooks of examples/notebooks, executed by a kernel: they run to the end and show what their text says."""

import os
from pathlib import Path

import jupytext
import nbclient
import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "notebooks"

pytestmark = [pytest.mark.usefixtures("tables"), pytest.mark.filterwarnings("ignore")]  # of the kernel's client


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Return a function that executes a notebook in a new folder and returns the outputs of its cells of code.

    An error of a cell is an error here. Nothing is printed to stderr, and no text has a control sequence.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))

    def run(name):
        notebook = jupytext.read(FOLDER / f"{name}.py")
        (tmp_path / "project").mkdir()
        resources = {"metadata": {"path": str(tmp_path / "project")}}
        nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
        cells = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
        assert [output.text for outputs in cells for output in outputs if output.get("name") == "stderr"] == []
        assert not [text for outputs in cells for output in outputs for text in texts_of(output) if "\x1b" in text]
        assert all(shown(cells, "text/html")), "an output is empty"
        return cells

    return run


def texts_of(output):
    """Return all texts of an output."""
    return [output.text] if output.output_type == "stream" else [str(value) for value in output.data.values()]


def printed(cells) -> str:
    return "".join(output.text for outputs in cells for output in outputs if output.output_type == "stream")


def shown(cells, kind: str) -> list[str]:
    """Return what the cells show as "text/html", "text/plain" or "image/png", besides what they print."""
    outputs = [output for outputs in cells for output in outputs if output.output_type != "stream"]
    return [output.data[kind] for output in outputs if kind in output.data]


def tables(cells) -> list[str]:
    return [html for html in shown(cells, "text/html") if "<table" in html]


def test_each_notebook_has_a_title_and_a_test():
    titles = {path.stem: path.read_text().split("\n")[1] for path in FOLDER.glob("*.py")}
    assert titles == {
        "compare-and-sweep": "# # Compare and sweep",
        "first-steps": "# # First steps",
        "look-inside": "# # Look inside",
        "your-own-model": "# # Your own model",
    }


def test_first_steps(execute):
    cells = execute("first-steps")
    assert [line.split()[1] for line in printed(cells).splitlines() if line.startswith("epoch ")] == [*"01234567"] * 2
    run, history, difference, runs = tables(cells)
    assert "<th style='text-align:left'>test/acc</th>" in run
    assert history.count("<tr>") == 8 + 1  # the last row of the heading has the name of the index
    assert "model.hidden" in difference
    assert runs.count("FINISHED") == 2
    assert len(shown(cells, "image/png")) == 2
    assert shown(cells, "text/plain")[-1] == "True"  # the best run is the first one
    assert "did you mean model.dropout?" in printed(cells)


@pytest.mark.slow
def test_your_own_model(execute):
    cells = execute("your-own-model")
    _, widths = tables(cells)
    assert "<td>32</td>" in widths
    assert "<td>8</td>" in widths
    assert "{'class_path': '__main__.DigitNet', 'init_args': {'width': 8, 'lr': 0.01}}" in shown(cells, "text/plain")
    true, predicted = (line.partition("[")[2].split(", ") for line in printed(cells).splitlines()[-2:])
    assert sum(one == other for one, other in zip(true, predicted, strict=True)) >= 15
    assert len(shown(cells, "image/png")) == 1


@pytest.mark.slow  # fourteen trainings, 45 s
def test_compare_and_sweep(execute):
    cells = execute("compare-and-sweep")
    summary, means, differences, trials = tables(cells)
    assert " ± " in summary
    assert means.count("<td>3</td>") == 2  # seeds of each row
    assert "verdict" in differences
    assert trials.count("COMPLETE") == 4
    assert printed(cells).count("confirm") == 4
    assert "default" in printed(cells[-1:])
    assert len(shown(cells, "image/png")) == 1


@pytest.mark.slow
def test_look_inside(execute):
    cells = execute("look-inside")
    predictions, wrong = tables(cells)
    assert "probability" in predictions
    assert "true" in wrong
    assert len(shown(cells, "image/png")) == 3
    accuracy = eval(shown(cells, "text/plain")[-1])
    assert accuracy["most salient"] < accuracy["random"] - 0.1

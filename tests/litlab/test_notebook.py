"""litlab in a notebook, executed by a kernel: one bar that is updated, text without control sequences, Ctrl-C."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[2]
SETUP = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}]
import os, signal, threading, litlab
from tests.litlab.test_objects import Net, loaders
"""
DEFINE = """
class Own(Net):
    def on_train_batch_end(self, *args): pass
trainer = {"max_epochs": 3, "accelerator": "cpu"}
"""


def execute(tmp_path, *cells):
    """Run cells in a kernel; return the outputs of each."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (SETUP, *cells)])
    client = nbclient.NotebookClient(
        notebook, timeout=120, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    assert not notebook.cells[0].outputs, notebook.cells[0].outputs
    return [cell.outputs for cell in notebook.cells[1:]]


def text_of(outputs) -> str:
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the kernel's client
def test_a_notebook_shows_one_bar_lines_of_epochs_and_goes_on_after_an_interrupt(tmp_path, tables):
    interrupt = "threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()"
    _, fitted, stopped, resumed, swept = execute(
        tmp_path,
        DEFINE,
        "run = litlab.fit(model=Own(), data=loaders(), trainer=trainer, name='own')\nrun",
        f"{interrupt}\nlitlab.fit(model=Own(), data=loaders(), trainer=trainer | {{'max_epochs': 5000}}, name='long')",
        "run = litlab.load('latest:long')\nprint(run.status, signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)\n"
        "litlab.fit(model=Own(), data=loaders(), trainer=trainer, name='own').status",
        "open('s.yaml', 'w').write('{experiment: digits-mlp, space: {model.hidden: [[4], [8]]}, metric: val/acc, "
        "sampler: grid, confirm: 0, set: {trainer.max_epochs: 1, data.n_train: 100}}')\nlitlab.sweep('s.yaml')",
    )
    bars = [output for output in fitted if output.output_type == "display_data"]
    assert len(bars) == 1
    assert "12/12" in bars[0].data["text/html"]
    text = text_of(fitted)
    assert [line.split()[1] for line in text.splitlines() if line.startswith("epoch ")] == ["0", "1", "2"]
    assert "\x1b" not in text
    assert "litlab.ui()" in text
    assert "own" in fitted[-1].data["text/html"]

    error = stopped[-1]
    assert error.output_type == "error"
    assert error.ename == "KeyboardInterrupt"
    assert len(text_of(stopped).splitlines()) < 100
    assert text_of(resumed).startswith("KILLED True")
    assert resumed[-1].data["text/plain"] == "'FINISHED'"

    assert "\x1b" not in text_of(swept)
    assert text_of(swept).count("complete") == 2
    (display,) = (output for output in swept if output.output_type == "display_data")
    assert "2 of 2 trials" in display.data["text/html"]
    assert "running" not in display.data["text/html"]

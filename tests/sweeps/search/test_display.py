"""What `litlab sweep` shows on a terminal of 80 columns, and in a pipe."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from sweeps.search.display import SweepDisplay
from sweeps.search.open_study import open_study
from sweeps.search.space import Space
from sweeps.search.storage import open_storage
from sweeps.search.study import Study
from sweeps.workers import display as live
from sweeps.workers.job import Job

SPACE = {"model.dropout": {"low": 0.0, "high": 0.7}, "model.hidden": [[128, 64, 32, 16], [512, 256, 128, 64, 32, 16]]}
LONG = "the training loss is nan in epoch 3 and this reason is longer than a line of the terminal"


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study of three trials: one complete, one pruned."""
    space = Space("s", "e", SPACE, "", metric="val/acc", direction="maximize", sampler="random", trials=3)
    facts = {"values": {}, "hash": "h", "config": {}, "defaults": {}, "max_epochs": 9}
    study = open_study(open_storage(str(tmp_path / "journal")), "s", space, facts, "host:1:1")
    study.tell(study.ask().number, "COMPLETE", 0.961234, {})
    study.tell(study.ask().number, "PRUNED", None, {})
    return study


def shown(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[SweepDisplay, io.StringIO]:
    """Return a display and its output; a terminal has 80 columns."""
    out = io.StringIO()
    made = Console(file=out, force_terminal=terminal, width=80, soft_wrap=True, highlight=False, color_system=None)
    monkeypatch.setattr(live, "Console", lambda **_: made)
    return SweepDisplay(), out


def test_a_trial_takes_one_line_of_80_columns_with_a_whole_number(study, monkeypatch):
    display, out = shown(True, monkeypatch)
    details = live.format_params(study.trials()[0].params) + "  and_more=0.25"
    display.trial_ended(study, 0, "COMPLETE", 12.34, details)
    (line,) = out.getvalue().splitlines()
    assert line.startswith("trial   0  complete  val/acc 0.9612  dropout=0.")
    assert line.endswith("…  (12.3 s)")
    assert len(line) == 80


def test_the_reason_of_a_failure_and_the_lines_of_a_pipe_are_whole(study, monkeypatch):
    display, out = shown(True, monkeypatch)
    display.trial_ended(study, 1, "FAIL", 1.0, LONG)
    assert LONG in out.getvalue()
    display, out = shown(False, monkeypatch)
    display.trial_ended(study, 0, "COMPLETE", 1.0, LONG)
    assert out.getvalue() == f"trial   0  complete  val/acc 0.9612  {LONG}  (1.0 s)  best 0.9612 (trial 0)\n"


def test_live_lines_have_progress_the_best_configuration_and_a_table_of_the_trainings(study, monkeypatch):
    display, out = shown(True, monkeypatch)
    job = Job([], run_name="2 dropout=0.25 hidden=" + "[512, 256] " * 9, metric="val/acc")
    child = SimpleNamespace(job=job, value=0.75, epoch=4, max_epochs=20, seconds=61.0)
    endless = SimpleNamespace(job=Job([], seed=7), value=None, epoch=0, max_epochs=None, seconds=1.0)
    with display:
        display.update(study, [child, endless])
    lines = [line.rstrip() for line in out.getvalue().replace("\x1b[?25l", "").splitlines()]
    assert lines[0] == "s: 2 of 3 trials   1 pruned"
    assert lines[1].startswith("best: val/acc 0.9612, trial 0: dropout=")
    assert lines[2].split() == ["running", "epochs", "val/acc", "time"]
    assert lines[3].startswith("2 dropout=0.25 hidden=[512, 256]")
    assert "…  " in lines[3]
    assert lines[3].endswith("4/20   0.7500  1 min 1 s")
    assert lines[4].split() == ["seed=7", "0", "1.0", "s"]
    assert all(len(line) <= 80 for line in lines)


def test_dashboards_are_told_the_name_of_the_objective(study):
    assert study.optuna.metric_names == ["val/acc"]

"""`litlab reproduce` runs what is missing, judges, and writes the page."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.tracking.query import find_runs
from pipelines.tracking.store import Store
from sweeps.reproduction import claims as published
from sweeps.reproduction import measurements as evidence
from sweeps.reproduction import reproduce

ONE = """
title: Lines
columns: [test/loss, test/loss_y0, selected_epoch]
tiers:
  full: {about: Functions., arguments: --trainer.max_epochs 2}
  quick: {about: Functions., arguments: --trainer.max_epochs 2}
experiments:
- id: linear
  source: X
  runs:
    slow: {command: functions-linear --model.optimizer.lr 0.001}
    fast: {command: functions-linear --model.optimizer.lr 0.03}
  claims:
  - {says: "fast | is better", greater: [slow test/loss, fast test/loss]}
  - {says: it has 16 parameters, count: [fast, 16], because: a bias fewer}
- id: machine
  source: X
  runs:
    svm: {command: baseline svm-rbf circles --C 1}
  claims:
  - {says: it sees, at_least: [svm test/acc, 0.9]}
  - {says: softmax, theory: test_softmax.py}
"""


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Takes a text for all that is published; returns its folder."""

    def write(text):
        folder = tmp_path / "published"
        folder.mkdir()
        (folder / "1.yaml").write_text(text)
        monkeypatch.setattr(published, "FOLDER", folder)
        monkeypatch.setattr(published.read, "__defaults__", ((), folder))
        return folder

    return write


@pytest.fixture
def lines(publish):
    """Two published experiments that take a second."""
    return publish(ONE)


def runs():
    return find_runs(Store(), []).runs


def test_it_runs_judges_and_writes_and_a_second_call_runs_nothing(litlab, lines, tmp_path):
    done = litlab("reproduce", "--seeds", "2", "--workers", "2", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert len(runs()) == 5  # two of each network, one of the machine, which has no chance
    text = (tmp_path / "out" / "RESULTS.md").read_text()
    assert re.search(r"\| linear \(X\) \| fast \\\| is better \|.*\| confirmed \|", text)
    assert "| it has 16 parameters | 15: a bias fewer | 15 | corrected |" in text
    assert re.search(r"\| machine \(X\) \| it sees \|  \| 0\.9\d+ \| confirmed \|", text)
    assert "| softmax |  | tests/theory/test_softmax.py passes | confirmed |" in text
    assert "litlab fit functions-linear --trainer.max_epochs 2 --model.optimizer.lr 0.03\n" in text
    assert "**Of 4 claims: 3 confirmed, 1 corrected.**" in text
    page = (tmp_path / "out" / "results.html").read_text()
    assert "fast | is better" in page
    again = litlab("reproduce", "--seeds", "2", "--workers", "2", "--out", tmp_path / "out")
    assert "5 runs, 5 of them are there already" in again.out
    assert len(runs()) == 5


def test_a_run_of_litlab_fit_with_the_same_configuration_is_reused(litlab, lines, tmp_path):
    arguments = published.read("quick").jobs["fast"].arguments
    assert litlab("fit", *arguments, "--seed_everything", "0", "--name", "mine").code == 0
    done = litlab("reproduce", "linear", "--seeds", "1", "--out", tmp_path / "out")
    assert "2 runs, 1 of them are there already" in done.out


def test_as_is_it_trains_nothing_and_judges_what_there_is(litlab, lines, tmp_path):
    done = litlab("reproduce", "--as-is", "--out", tmp_path / "out")
    assert done.code == 0
    assert runs() == []
    text = (tmp_path / "out" / "RESULTS.md").read_text()
    assert "no finished run has slow test/loss or fast test/loss" in text
    assert "**Of 4 claims: 1 confirmed, 1 corrected, 2 not judged.**" in text


def test_a_failed_run_is_said_in_the_page_and_by_the_exit_code(litlab, lines, tmp_path):
    text = ONE.replace("--model.optimizer.lr 0.03", "--model.optimizer.lr 1.0e+30 --data.n_train 300")
    (lines / "1.yaml").write_text(text)
    done = litlab("reproduce", "linear", "--seeds", "1", "--out", tmp_path / "out")
    assert done.code == 1
    text = (tmp_path / "out" / "RESULTS.md").read_text()
    assert "- fast: the training loss is nan" in text or "- fast: the training loss is inf" in text
    assert re.search(r"no finished run has fast test/loss \| not judged", text)


def test_a_part_of_the_full_tier_never_writes_over_the_whole_page(litlab, lines, tmp_path, monkeypatch):
    monkeypatch.setattr("sweeps.reproduction.reproduce.project_folder", lambda: tmp_path)
    done = litlab("reproduce", "machine", "--tier", "full", "--seeds", "1")
    assert done.code == 0, done.err
    assert (tmp_path / "reproduction" / "RESULTS.md").is_file()
    assert not (tmp_path / "docs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "0"], "--seeds 0: expected at least 1"),
        (["mnist-mpl"], "there is no published experiment 'mnist-mpl'"),
        (["--tier", "slow"], "invalid choice: 'slow'"),
        (["--sedes", "3"], "--sedes"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(litlab, arguments, said):
    done = litlab("reproduce", *arguments)
    assert done.code == 2
    assert said in done.err
    assert runs() == []


@pytest.mark.slow
def test_stopped_it_leaves_no_run_under_way_and_goes_on_where_it_was(litlab, tmp_path):
    command = [sys.executable, "-c", "import sys; from pipelines.cli import main; sys.exit(main())", "reproduce"]
    command += ["circles-learning-rate", "--workers", "1", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not _finished():
        time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "the same command goes on" in out
    left = _statuses()
    assert "RUNNING" not in left
    plan = published.read("quick", ["circles-learning-rate"])
    kept = evidence.finished(Store(), evidence.look(plan.jobs.values()), 3)
    assert 0 < sum(map(len, kept.values())) < 15


def _statuses() -> list[str]:
    store = Store()
    ids = [experiment.experiment_id for experiment in store.client.search_experiments()]
    return [run.info.status for run in store.client.search_runs(ids)]


def _finished() -> bool:
    return Path(os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///")).exists() and "FINISHED" in _statuses()


def test_the_hash_of_a_configuration_does_not_depend_on_what_was_imported_before():
    code = (
        "{}from pipelines.config.cli import parse_config\nfrom pipelines.config.identity import config_hash\n"
        "print(config_hash(parse_config('fit', ['one-conv']).resolved()))"
    )
    said = [
        subprocess.run([sys.executable, "-c", code.format(before)], capture_output=True, text=True, check=True).stdout
        for before in ("", "import sklearn.svm\n")  # which decides whether `int | float` tries int first
    ]
    assert said[0] == said[1]


def test_workers_are_as_many_as_cores_unless_there_is_a_gpu():
    assert 1 <= reproduce._usual_workers() <= reproduce.MAX_WORKERS


LOOKS = """
title: Looks
columns: [test/acc, on_object]
tiers:
  full: {about: Digits., arguments: --trainer.max_epochs 1}
  quick: {about: Digits., arguments: --trainer.max_epochs 1}
experiments:
- id: occlusion
  source: X
  runs:
    digits: {command: digits-mlp}
    hidden: {command: explain occlusion --block 4 --stride 4 --stroke 0.5, looks_at: digits}
  claims:
  - {says: minima lie on strokes, at_least: [hidden block_on_object, 1]}
"""


def test_a_trained_network_is_looked_at_once_and_what_was_seen_is_judged(litlab, publish, tmp_path):
    publish(LOOKS)
    done = litlab("reproduce", "--seeds", "2", "--workers", "2", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert [run.experiment for run in runs()] == ["reproduce-quick"] * 2  # a look is not a training
    looks = Store().search([Store().experiment_id("reproduce-quick")], "tags.`litlab.parent` = 'explain'")
    assert {look.tags["mlflow.parentRunId"] for look in looks} == {run.run_id for run in runs()}
    text = (tmp_path / "out" / "RESULTS.md").read_text()
    assert "litlab explain occlusion RUN_ID --block 4 --stride 4 --stroke 0.5  # of digits" in text
    assert "(n = 2) | confirmed |" in text
    assert "4 runs, 4 of them are there already" in litlab("reproduce", "--seeds", "2", "--out", tmp_path / "out").out

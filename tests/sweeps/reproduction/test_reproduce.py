"""`litlab reproduce` runs what is missing, judges the claims, and writes the page."""

import functools
import os
import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from pipelines.config.cli import parse_config
from pipelines.config.identity import config_hash
from pipelines.runtime.errors import UserError
from pipelines.tracking.query import find_runs
from pipelines.tracking.store import Store
from sweeps.reproduction import claims, measurements
from sweeps.reproduction.claims import load_plan
from sweeps.reproduction.finished import find_finished_runs
from sweeps.reproduction.identity import identify_jobs
from sweeps.reproduction.jobs import MAX_WORKERS, default_workers
from sweeps.reproduction.reproduce import reproduce
from tests.published_experiments import OCCLUSION

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
  - {says: it has 16 parameters, count: [fast, 16], because: there is no bias}
- id: machine
  source: X
  runs:
    svm: {command: baseline svm-rbf circles --C 1}
  claims:
  - {says: it separates the classes, at_least: [svm test/acc, 0.9], beyond: true}
  - {says: softmax, theory: test_softmax.py}
"""


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Return a function that replaces all published experiments by those of a YAML text, and returns their folder."""

    def write(text):
        folder = tmp_path / "published"
        folder.mkdir()
        (folder / "1.yaml").write_text(text)
        monkeypatch.setattr(claims, "FOLDER", folder)
        return folder

    return write


@pytest.fixture(scope="module")
def theory_once():
    """Return what runs the tests of theory, the first time."""
    run = functools.cache(measurements._run_theory_tests)
    return lambda files: run(tuple(files))


@pytest.fixture
def lines(publish, theory_once, monkeypatch):
    """Publish two experiments that take a second."""
    monkeypatch.setattr(measurements, "_run_theory_tests", theory_once)
    return publish(ONE)


def runs():
    return find_runs(Store(), []).runs


@pytest.mark.slow
def test_it_trains_judges_and_writes_the_page_and_a_second_call_trains_nothing(litlab, lines, tmp_path):
    done = litlab("reproduce", "--seeds", "2", "--workers", "2", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert len(runs()) == 5  # two of each network, one of the deterministic method
    text = (tmp_path / "out" / "RESULTS.md").read_text()
    assert re.search(r"\| linear \(X\) \| fast \\\| is better \|.*, adjusted p .*\| reproduced \|", text)
    assert "| it has 16 parameters | 15: there is no bias | 15 | corrected |" in text
    assert re.search(r"\| machine \(X\) \| it separates the classes \|  \| 0\.9\d+; at least 0\.9 \| yes \|", text)
    assert "| softmax |  | tests/theory/test_softmax.py passes | reproduced |" in text
    assert "litlab fit functions-linear --trainer.max_epochs 2 --model.optimizer.lr 0.03\n" in text
    counts = "1 measured claim: 1 reproduced. 2 counts and derivations: 1 reproduced, 1 corrected."
    assert f"**{counts} 1 statement beyond the reports: 1 yes.**" in text
    assert text.index("## Beyond the reports") < text.index("it separates the classes")
    assert re.search(r"\| fast \| 2 \| \d\.\d+ \[\d\.\d+, \d\.\d+\] \|", text), "intervals"
    page = (tmp_path / "out" / "results.html").read_text()
    assert "fast | is better" in page
    again = litlab("reproduce", "--seeds", "2", "--workers", "2", "--out", tmp_path / "out")
    assert "5 runs, 5 of them are already finished" in again.out
    assert len(runs()) == 5


@pytest.mark.slow
def test_a_run_of_litlab_fit_with_the_same_configuration_is_reused(litlab, lines, tmp_path):
    arguments = load_plan("quick").jobs["fast"].arguments
    assert litlab("fit", *arguments, "--seed_everything", "0", "--name", "mine").code == 0
    done = litlab("reproduce", "linear", "--seeds", "1", "--out", tmp_path / "out")
    assert "2 runs, 1 of them is already finished" in done.out


@pytest.mark.slow
def test_as_is_judges_existing_runs_and_trains_nothing(litlab, lines, tmp_path):
    done = litlab("reproduce", "--as-is", "--out", tmp_path / "out")
    assert done.code == 0
    assert runs() == []
    text = (tmp_path / "out" / "RESULTS.md").read_text()
    assert "| D | Homework part 2 |" in text
    assert "Homework part 2" in (tmp_path / "out" / "results.html").read_text()
    assert "no finished run has slow test/loss or fast test/loss" in text
    assert "1 measured claim: 1 not judged. 2 counts and derivations: 1 reproduced, 1 corrected." in text


@pytest.mark.slow
def test_the_function_returns_verdicts_runs_and_pages(lines, tmp_path, capfd):
    result = reproduce(["linear"], seeds=2, workers=2, out=tmp_path / "out")
    assert [verdict.word for verdict in result.verdicts["linear"]] == ["reproduced", "corrected"]
    assert {label: sorted(seeds) for label, seeds in result.runs.items()} == {"slow": ["0", "1"], "fast": ["0", "1"]}
    assert result.pages == [tmp_path / "out" / "RESULTS.md", tmp_path / "out" / "results.html"]
    assert (result.failures, result.stop_signal) == ({}, None)
    assert "Generated by" not in result.pages[0].read_text()


@pytest.mark.parametrize(
    ("values", "message"),
    [({"tier": "slow"}, "--tier slow: expected quick or full"), ({"workers": 0}, "--workers 0: expected at least 1")],
)
def test_the_function_rejects_invalid_values(values, message):
    with pytest.raises(UserError, match=message):
        reproduce(**values)


def test_a_failed_run_is_reported_on_the_page_and_by_the_exit_code(litlab, lines, tmp_path):
    text = ONE.replace("--model.optimizer.lr 0.03", "--model.optimizer.lr 1.0e+30 --data.n_train 300")
    (lines / "1.yaml").write_text(text)
    done = litlab("reproduce", "linear", "--seeds", "1", "--out", tmp_path / "out")
    assert done.code == 1
    text = (tmp_path / "out" / "RESULTS.md").read_text()
    assert "- fast: the training loss is nan" in text or "- fast: the training loss is inf" in text
    assert re.search(r"no finished run has fast test/loss \| not judged", text)


def test_pages_are_written_to_the_current_folder(litlab, lines, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = litlab("reproduce", "machine", "--tier", "full", "--seeds", "1")
    assert done.code == 0, done.err
    assert (tmp_path / "reproduction" / "RESULTS.md").is_file()


def test_the_runs_are_read_from_the_store_once_for_all_jobs(lines, monkeypatch):
    searches, search = [], Store.search
    monkeypatch.setattr(Store, "search", lambda *args: searches.append(args) or search(*args))
    jobs = load_plan("quick").jobs
    found = find_finished_runs(Store(), list(jobs.values()), identify_jobs(jobs.values()))
    assert found == {label: {} for label in jobs}
    assert len(searches) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds 0: expected at least 1"),
        (["mnist-mpl"], "there is no published experiment 'mnist-mpl'"),
        (["--tier", "slow"], "invalid choice: 'slow'"),
        (["--sedes", "3"], "unknown option --sedes: did you mean --seeds?"),
    ],
)
def test_invalid_arguments_are_rejected_before_anything_runs(litlab, arguments, message):
    done = litlab("reproduce", *arguments)
    assert done.code == 2
    assert message in done.err
    assert runs() == []


@pytest.mark.slow
def test_ctrl_c_leaves_no_run_running_and_keeps_the_finished_ones(litlab, tmp_path):
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
    assert "Run the same command again to continue" in out
    assert "RUNNING" not in _statuses()
    jobs = load_plan("quick", ["circles-learning-rate"]).jobs
    finished = find_finished_runs(Store(), list(jobs.values()), identify_jobs(jobs.values()))
    assert 0 < sum(map(len, finished.values())) < 15


def _statuses() -> list[str]:
    store = Store()
    ids = [experiment.experiment_id for experiment in store.client.search_experiments()]
    return [run.info.status for run in store.client.search_runs(ids)]


def _finished() -> bool:
    return Path(os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///")).exists() and "FINISHED" in _statuses()


@pytest.mark.slow
def test_the_hash_of_a_configuration_does_not_depend_on_what_was_imported_before():
    code = (
        "import sys\nfrom pipelines.config.cli import parse_config\nfrom pipelines.config.identity import config_hash\n"
        "print(config_hash(parse_config('fit', ['one-conv']).resolved()), 'sklearn.svm' in sys.modules)"
    )
    import_module("sklearn.svm")  # which decides whether `int | float` tries int first
    here = config_hash(parse_config("fit", ["one-conv"]).resolved())
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert fresh.split() == [here, "False"]


def test_default_workers_are_as_many_as_cores_up_to_a_limit():
    assert 1 <= default_workers() <= MAX_WORKERS


EXPLANATIONS = f"""
title: Explanations
columns: [test/acc, on_object]
tiers:
  full: {{about: Digits., arguments: --trainer.max_epochs 1}}
  quick: {{about: Digits., arguments: --trainer.max_epochs 1}}
{OCCLUSION}"""


def test_a_trained_network_is_explained_once_and_the_explanation_is_judged(litlab, publish, tmp_path):
    publish(EXPLANATIONS)
    done = litlab("reproduce", "--seeds", "2", "--workers", "2", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert [run.experiment for run in runs()] == ["reproduce-quick"] * 2  # an explanation is no training
    explanations = Store().search([Store().experiment_id("reproduce-quick")], "tags.`litlab.parent` = 'explain'")
    assert {run.tags["mlflow.parentRunId"] for run in explanations} == {run.run_id for run in runs()}
    text = (tmp_path / "out" / "RESULTS.md").read_text()
    assert "litlab explain occlusion RUN_ID --block 4 --stride 4 --stroke 0.5  # RUN_ID: a run of digits" in text
    assert "(n = 2); at least 1 |" in text
    assert (
        "4 runs, 4 of them are already finished" in litlab("reproduce", "--seeds", "2", "--out", tmp_path / "out").out
    )

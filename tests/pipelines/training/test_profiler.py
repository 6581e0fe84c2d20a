"""The report of a profiler is printed after training and test, and kept with the run."""

import subprocess

import pytest

from pipelines.evaluation.profiles import FOLDER
from pipelines.runtime.terminal_log import FILE
from pipelines.tracking.store import Store

pytestmark = pytest.mark.usefixtures("tables")
SIMPLE = "[LightningModule]MLP.optimizer_step"


@pytest.fixture
def printed(start_litlab):
    """Return a function that runs a command in another process, whose loggers write to its own stderr."""

    def run(*args):
        process = start_litlab(*args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return err

    return run


@pytest.mark.parametrize(
    ("profiler", "mark"),
    [
        ("simple", SIMPLE),
        pytest.param("advanced", "Profile stats for: run_training_batch", marks=pytest.mark.slow),
        pytest.param("lightning.pytorch.profilers.SimpleProfiler", SIMPLE, marks=pytest.mark.slow),
    ],
)
def test_the_report_is_printed_and_kept(printed, profiler, mark, uri):
    err = printed("fit", "digits-mlp", "--trainer.max_epochs=1", "--trainer.profiler", profiler)
    store = Store(uri)
    (run,) = store.search(list(store.experiment_names()), "")
    reports = {stage: run.file(f"{FOLDER}/{stage}.txt").read_text() for stage in ("fit", "test")}
    assert mark in reports["fit"]
    assert "test_step" in reports["test"]
    for stage, report in reports.items():
        title = f"{stage.upper()} Profiler Report"
        assert report.splitlines()[0] == title
        assert (err.count(title), run.file(FILE).read_text().count(title)) == (1, 1)


def test_the_profile_of_a_test_that_is_asked_for_is_printed_and_the_run_is_only_read(litlab, printed, tmp_path):
    run_id = litlab("fit", "digits-mlp", "--trainer.max_epochs=1").run_id
    assert printed("test", run_id, "--trainer.profiler", "simple").count("TEST Profiler Report") == 1
    assert not list((tmp_path / "runs").rglob(FOLDER))

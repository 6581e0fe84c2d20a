"""The report of a profiler is printed after training and test, and kept with the run."""

from pathlib import Path

import pytest

from pipelines.evaluation.profiles import FOLDER

pytestmark = pytest.mark.usefixtures("tables")
MARKS = {"simple": "[LightningModule]MLP.optimizer_step", "advanced": "Profile stats for: run_training_batch"}


@pytest.mark.parametrize("profiler", ["simple", "advanced", "lightning.pytorch.profilers.SimpleProfiler"])
def test_the_report_is_printed_and_kept(litlab, profiler, uri):
    outcome = litlab("fit", "digits-mlp", "--trainer.max_epochs=1", "--trainer.profiler", profiler)
    assert outcome.code == 0
    shown = litlab("show", outcome.run_id).out
    folder = next(line.split()[1] for line in shown.splitlines() if line.startswith("files"))

    reports = {stage: (Path(folder) / FOLDER / f"{stage}.txt").read_text() for stage in ("fit", "test")}
    assert MARKS.get(profiler, MARKS["simple"]) in reports["fit"]
    assert "test_step" in reports["test"]
    for stage, report in reports.items():
        assert report.splitlines()[0] == f"{stage.upper()} Profiler Report"
        assert outcome.err.count(f"{stage.upper()} Profiler Report") == 1


def test_the_profile_of_a_test_that_is_asked_for_is_printed_and_the_run_is_only_read(litlab, tmp_path):
    run_id = litlab("fit", "digits-mlp", "--trainer.max_epochs=1").run_id
    outcome = litlab("test", run_id, "--trainer.profiler", "simple")
    assert (outcome.code, outcome.err.count("TEST Profiler Report")) == (0, 1)
    assert not list((tmp_path / "runs").rglob(FOLDER))

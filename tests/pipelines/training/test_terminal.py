"""What a training prints is among the files of its run, also of one that crashes and is resumed."""

import pytest
import yaml

from pipelines.runtime.terminal_log import FILE
from pipelines.tracking.store import Store
from pipelines.training.failures import RunFailedError
from pipelines.training.fit import fit
from pipelines.training.resume import resume

MODULES = "tests.fixtures.strangers"

pytestmark = pytest.mark.usefixtures("tables")


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "strange.yaml"
    trainer = {"max_epochs": 4, "accelerator": "cpu", "log_every_n_steps": 1}
    parts = {"data": f"{MODULES}.loggers.Data", "model": f"{MODULES}.schedules.Fails", "trainer": trainer}
    path.write_text(yaml.safe_dump(parts))
    return path


def printed(run_id: str, uri: str) -> str:
    return Store(uri).find(run_id).file(FILE).read_text()


def test_a_crash_is_kept_with_its_traceback_and_a_resume_appends(experiment, uri, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunFailedError) as failed:
        fit(experiment)
    run_id = failed.value.run_id
    text = printed(run_id, uri)
    assert "a first line of the user\n" in text
    assert text.count("epoch   1 ") == 1
    assert text.rstrip().endswith("RuntimeError: not yet")
    assert "Traceback (most recent call last)" in text
    assert "schedules.py" in text
    (tmp_path / "repaired").touch()
    assert resume(run_id) is not None
    longer = printed(run_id, uri)
    assert longer.startswith(text)
    assert f"litlab: Resuming run {run_id} after epoch 1" in longer
    assert longer.count("epoch   3 ") == 1
    screen = capfd.readouterr()
    shown = {*screen.out.splitlines(), *screen.err.splitlines()}
    assert {line for line in longer.removeprefix(text).splitlines() if line.startswith(("epoch", "litlab"))} <= shown


def test_a_run_that_is_stopped_says_so(experiment, uri, tmp_path):
    overrides = ["--model", f"{MODULES}.schedules.Stops"]
    with pytest.raises(KeyboardInterrupt):
        fit(experiment, overrides=overrides)
    run = next(iter(Store(uri).search(list(Store(uri).experiment_names()), "")))
    assert run.status == "KILLED"
    text = printed(run.run_id, uri)
    assert text.rstrip().endswith("KeyboardInterrupt")
    assert "Traceback" not in text

"""`--notify`: a shell command learns how a run ended, and cannot harm it."""

import sys
import time

import pytest

from pipelines.runtime import notify as notifying
from pipelines.runtime.notify import notify
from pipelines.tracking.store import Store
from pipelines.tracking.tags import COMMAND_TAG

SMALL = ["fit", "digits-mlp", "--data.n_train", "200", "--trainer.enable_progress_bar", "false"]
OF_TESTS = ("LITLAB_UNSENT", "LITLAB_STATE", "LITLAB_FIRST")  # in the environment of each command
ONE = ["--trainer.max_epochs", "1"]
FAILS = """
from lightning.pytorch import Callback

class Fails(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise {error}
"""


@pytest.fixture
def told(tmp_path):
    """A command that writes its facts to a file, and a function that reads them."""
    path = tmp_path / "told"

    def read():
        facts = dict(line.split("=", 1) for line in path.read_text().splitlines() if line.startswith("LITLAB_"))
        return {key: value for key, value in facts.items() if key not in OF_TESTS}

    return f"env > {path}", read


def test_a_finished_fit_tells_its_best_value_and_the_command_is_not_recorded(litlab, told, uri):
    command, read = told
    assert litlab(*SMALL, *ONE, "--notify", command, "--run_name", "first try").code == 0
    (run,) = Store().search(["1"], "")
    facts = read()
    assert float(facts.pop("LITLAB_VALUE")) == pytest.approx(run.metrics["selected/val/acc"], rel=1e-5)
    assert facts == {
        "LITLAB_RUN_ID": run.run_id,
        "LITLAB_RUN_NAME": "first try",
        "LITLAB_EXPERIMENT": "digits-mlp",
        "LITLAB_STATUS": "FINISHED",
        "LITLAB_REASON": "",
        "LITLAB_METRIC": "val/acc",
        "LITLAB_TRACKING_URI": uri,
    }
    assert "notify" not in run.tags[COMMAND_TAG]
    assert "notify" not in str(run.params)


@pytest.mark.parametrize(
    ("error", "code", "status", "reason"),
    [("KeyboardInterrupt", 130, "KILLED", "KeyboardInterrupt"), ("OSError('broken')", 1, "FAILED", "OSError: broken")],
)
def test_a_stopped_or_failed_fit_and_its_resumption_tell(
    litlab, told, tmp_path, monkeypatch, error, code, status, reason
):
    (tmp_path / "failing.py").write_text(FAILS.format(error=error))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "failing", raising=False)
    command, read = told
    callback = ["--trainer.max_epochs", "2", "--trainer.callbacks", "failing.Fails"]
    assert litlab(*SMALL, *callback, "--notify", command).code == code
    facts = read()
    assert (facts["LITLAB_STATUS"], facts["LITLAB_REASON"], facts["LITLAB_METRIC"]) == (status, reason, "val/acc")
    assert 0 < float(facts["LITLAB_VALUE"]) <= 1
    (tmp_path / "told").unlink()
    assert litlab("resume", facts["LITLAB_RUN_ID"], "--notify", command).code == code
    assert read()["LITLAB_RUN_ID"] == facts["LITLAB_RUN_ID"]


def test_a_command_that_fails_is_one_warning(litlab):
    outcome = litlab(*SMALL, *ONE, "--notify", "echo no route >&2; exit 7")
    assert outcome.code == 0
    warnings = [line for line in outcome.err.splitlines() if "--notify" in line]
    assert warnings == ["litlab: --notify: the command ended with exit code 7: no route"]


def test_a_command_that_hangs_is_killed_with_what_it_started(monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(notifying, "LIMIT_S", 0.5)
    began = time.monotonic()
    notify(f"(sleep 2; touch {tmp_path / 'late'}) & wait", {})
    assert time.monotonic() - began < 2
    assert "took more than 0.5 s and was killed" in caplog.text
    time.sleep(2)
    assert not (tmp_path / "late").exists()

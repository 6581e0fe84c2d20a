"""`--keep`: which checkpoints a finished run has."""

import pytest

from pipelines.tracking.store import Store

SMALL = ["fit", "digits-mlp", "--data.n_train", "200", "--trainer.enable_progress_bar", "false"]
STOPS = """
import os
from lightning.pytorch import Callback

class Stops(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1 and os.environ.pop("STOP", ""):
            raise KeyboardInterrupt
"""


def checkpoints(run):
    return sorted(path.name for path in (run.folder / "checkpoints").iterdir())


@pytest.mark.parametrize(("keep", "kept"), [("all", ["best.ckpt", "last.ckpt"]), ("best", ["best.ckpt"]), ("none", [])])
def test_a_stopped_run_has_all_checkpoints_and_the_resumed_one_those_that_were_chosen(
    litlab, tmp_path, monkeypatch, keep, kept
):
    (tmp_path / "stops_early.py").write_text(STOPS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("STOP", "1")
    stops = ["--trainer.max_epochs", "3", "--trainer.callbacks", "stops_early.Stops"]
    assert litlab(*SMALL, *stops, "--keep", keep).code == 130
    (run,) = Store().search(["1"], "")
    assert checkpoints(run) == ["best.ckpt", "last.ckpt"]
    resumed = litlab("resume", run.run_id)
    assert resumed.code == 0, resumed.err
    assert checkpoints(run) == kept
    assert ("none is kept" in resumed.out) == (keep == "none")
    tested = litlab("test", run.run_id)
    assert tested.code == (2 if keep == "none" else 0)
    assert ("it was trained with --keep none" in tested.err) == (keep == "none")


def test_what_is_kept_changes_neither_the_configuration_nor_the_name(litlab):
    for keep in ("all", "none"):
        assert litlab(*SMALL, "--trainer.max_epochs", "1", "--keep", keep).code == 0
    first, second = Store().search(["1"], "")
    assert (first.configuration, first.name) == (second.configuration, second.name)
    assert first.tags["litlab.config_hash"] == second.tags["litlab.config_hash"]
    refused = litlab(*SMALL, "--keep", "some")
    assert (refused.code, "keep" in refused.err) == (2, True)

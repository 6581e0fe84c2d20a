"""A run is evaluated without what only its training needed: callbacks, profiler and training data."""

import sys

import pytest
from PIL import Image

CALLBACK = """
from lightning.pytorch import Callback

class Mine(Callback):
    pass
"""


@pytest.fixture
def lost_run(litlab, tables, tmp_path, monkeypatch):
    """A run whose callback cannot be imported any more."""
    path = tmp_path / "lost_callback.py"
    path.write_text(CALLBACK)
    monkeypatch.syspath_prepend(tmp_path)
    callbacks = ["--trainer.callbacks+=lost_callback.Mine", "--trainer.callbacks+=modules.probes.DeadUnits"]
    run_id = litlab("fit", "digits-mlp", "--trainer.max_epochs", "1", "--trainer.profiler", "simple", *callbacks).run_id
    path.unlink()
    monkeypatch.delitem(sys.modules, "lost_callback")
    return run_id


def test_a_run_whose_callback_is_lost_is_tested_validated_used_and_explained(litlab, lost_run, tmp_path):
    Image.new("L", (28, 28)).save(tmp_path / "it.png")
    validated = litlab("validate", lost_run)
    assert validated.code == 0, validated.err
    assert "dead_units" in validated.out, "probes measure in evaluations too"
    for verb, *args in (
        ("test",),
        ("predict", tmp_path / "it.png"),
        ("explain", "saliency", "--out", tmp_path / "explained"),
    ):
        words = [verb, args[0], lost_run, *args[1:]] if verb == "explain" else [verb, lost_run, *args]
        outcome = litlab(*words)
        assert outcome.code == 0, outcome.err
    assert litlab("resume", lost_run).code == 2

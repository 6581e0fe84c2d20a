"""Messages of Lightning: those that do not apply are hidden, those that concern a user are shown."""

import warnings
from pathlib import Path

import lightning.pytorch
import pytest
from lightning.pytorch import Trainer

from pipelines.config.cli import parse_config
from pipelines.runtime.silence import hidden_warnings, silence_lightning
from pipelines.training.fit import fit

WORKERS = "The 'train_dataloader' does not have many workers which may be a bottleneck"
INTERVAL = "The number of training batches (3) is smaller than the logging interval"
CALLBACKS = "Be aware that callbacks used to create the checkpoint need to be provided"


def shown(texts, **options):
    """Return which of the warnings are shown within `hidden_warnings`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with hidden_warnings(**options):
            for text in texts:
                warnings.warn(text, stacklevel=1)
    return [str(warning.message) for warning in caught]


def test_a_warning_is_hidden_only_where_it_does_not_apply():
    texts = [WORKERS, INTERVAL, CALLBACKS]
    assert shown(texts, in_memory=False) == texts
    assert shown(texts, in_memory=True) == [INTERVAL, CALLBACKS]
    assert shown(texts, in_memory=False, logs_steps=False) == [WORKERS, CALLBACKS]
    assert shown(texts, in_memory=False, evaluates=True) == [WORKERS, INTERVAL]


def test_a_folder_with_files_is_told_of_unless_it_is_the_runs_own(tmp_path):
    texts = [f"Checkpoint directory {tmp_path / name / 'checkpoints'} exists and is not empty." for name in "ab"]
    assert shown(texts, in_memory=True, folder=tmp_path / "a") == texts[1:]
    assert shown(texts, in_memory=True) == texts


@pytest.mark.parametrize(
    "words",
    [
        "available but not used",
        "not resumable",
        "does not have many workers",
        "smaller than the logging interval",
        "callbacks used to create the checkpoint need to be provided",
        "exists and is not empty",
        "Ignoring `Trainer(max_time",
        "existing callbacks passed to Trainer",
        "No training batches",
        "`Trainer(detect_anomaly=True)`",
    ],
)
def test_lightning_still_has_the_message(words):
    folder = Path(lightning.pytorch.__file__).parent
    assert any(words in path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))


def test_values_of_steps_are_logged_by_some_callbacks_only(tables, litlab):
    options = ("--trainer.max_epochs", "1", "--data.n_train", "100", "--trainer.enable_progress_bar", "false")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*smaller than the logging interval")
        assert fit("digits-mlp", overrides=options)
    monitor = ("--trainer.callbacks+", "LearningRateMonitor", "--trainer.callbacks.logging_interval", "step")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit("digits-mlp", overrides=[*options, *monitor])
    assert any("smaller than the logging interval" in str(warning.message) for warning in caught)


def test_a_time_limit_that_a_timer_replaces_is_told_and_what_hardware_there_is_is_not(caplog):
    silence_lightning()
    silence_lightning()
    callbacks = parse_config("fit", ["digits-mlp", "--trainer.callbacks+=Timer"]).callbacks
    Trainer(max_time="00:01:00:00", callbacks=callbacks, accelerator="cpu", logger=False)
    assert [record.getMessage() for record in caplog.records if "max_time" in record.getMessage()] == [
        "Ignoring `Trainer(max_time=...)`, callbacks list already contains a Timer."
    ]
    assert "GPU available" not in caplog.text
    assert "Tip" not in caplog.text

"""Messages of Lightning: those that do not apply are hidden, those that concern a user are shown."""

import warnings
from pathlib import Path

import lightning.pytorch
import pytest
from lightning.pytorch import Trainer

from pipelines.config.cli import parse_config
from pipelines.runtime.silence import hidden_warnings, silence_lightning

WORKERS = "The 'train_dataloader' does not have many workers which may be a bottleneck"
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
    texts = [WORKERS, CALLBACKS]
    assert shown(texts, in_memory=False) == texts
    assert shown(texts, in_memory=True) == [CALLBACKS]
    assert shown(texts, in_memory=False, evaluates=True) == [WORKERS]


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


MONITOR = ("--trainer.callbacks+=LearningRateMonitor", "--trainer.callbacks.logging_interval")


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["--model=loops.Net"], None),
        (["--model=loops.LogsTraining"], None),
        (["--model=loops.LogsByStep", "--trainer.log_every_n_steps=6"], None),
        (["--model=loops.Net", *MONITOR, "epoch"], None),
        (["--model=loops.LogsByStep"], "train_loss, train_acc"),
        (["--model=loops.Net", *MONITOR, "step"], "LearningRateMonitor"),
    ],
    ids=["nothing", "epochs", "often enough", "rates of epochs", "steps", "rates of steps"],
)
def test_an_epoch_too_short_for_values_of_steps_is_told_once_if_there_are_some(
    strangers, tables, litlab, tmp_path, args, names
):
    path = tmp_path / "it.yaml"
    path.write_text("data: {class_path: loops.Data}\ntrainer: {max_epochs: 2, accelerator: cpu}\n")
    outcome = litlab("fit", "-c", path, *args)
    assert outcome.code == 0, outcome.err
    told = [line for line in outcome.err.splitlines() if "log_every_n_steps" in line]
    assert [line.partition("an epoch has 6: ")[2] for line in told] == ([names] if names else [])


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

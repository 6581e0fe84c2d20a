"""Every callback of Lightning works in a fit, also when it is resumed, or is refused with the reason."""

import json
from pathlib import Path

import pytest
from lightning.pytorch import callbacks

from pipelines.config.cli import parse_config
from pipelines.runtime.errors import UserError
from pipelines.training.failures import RunFailedError
from pipelines.training.fit import fit
from pipelines.training.resume import resume

pytestmark = pytest.mark.usefixtures("garbage_of_earlier_files_stays")
CLASSES = "tests.fixtures.strangers.classes"
ARGUMENTS = {
    "BackboneFinetuning": {"unfreeze_backbone_at_epoch": 1},
    "BatchSizeFinder": {"max_trials": 2},
    "DeviceStatsMonitor": {"cpu_stats": False},  # they need psutil
    "EarlyStopping": {"monitor": "val/loss"},
    "GradientAccumulationScheduler": {"scheduling": {"0": 1, "1": 2}},
    "LearningRateFinder": {"num_training_steps": 5},
    "ModelCheckpoint": {"monitor": "val/loss"},
    "ModelPruning": {"pruning_fn": "l1_unstructured"},
    "OnExceptionCheckpoint": {"dirpath": "on_exception"},
    "StochasticWeightAveraging": {"swa_lrs": 0.01, "swa_epoch_start": 1},
    "ThroughputMonitor": {"batch_size_fn": f"{CLASSES}.count_examples"},
    "Timer": {"duration": "00:01:00:00"},
}
ABSTRACT = {"BaseFinetuning", "BasePredictionWriter", "Callback", "Checkpoint", "ProgressBar"}
REFUSED = {"OnExceptionCheckpoint"}
NAMES = sorted({*callbacks.__all__} - ABSTRACT - REFUSED)
USUAL = {"EarlyStopping", "LearningRateMonitor", "ModelCheckpoint", "StochasticWeightAveraging"}
CANNOT_BE_RESUMED = {"SpikeDetection"}  # Lightning 2.6 cannot restore its state


def arguments(tmp_path, name, *more):
    import yaml

    callback = {"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": ARGUMENTS.get(name, {})}
    model = {"class_path": f"{CLASSES}.{'Finetuned' if name == 'BackboneFinetuning' else 'Net'}"}
    trainer = {"max_epochs": 3, "accelerator": "cpu", "log_every_n_steps": 1, "callbacks": [callback, *more]}
    config = {"data": {"class_path": f"{CLASSES}.Points"}, "model": model, "trainer": trainer}
    (tmp_path / "it.yaml").write_text(yaml.safe_dump(config))
    return ["-c", str(tmp_path / "it.yaml")]


@pytest.mark.filterwarnings("ignore:When using the `ThroughputMonitor`")
@pytest.mark.parametrize(
    "name", [name if name in USUAL else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_a_callback_works_and_a_resumed_fit_has_the_same_metrics(tables, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    whole = fit(overrides=arguments(tmp_path, name))
    assert whole.metrics["test/loss"] > 0
    crash = {"class_path": f"{CLASSES}.CrashOnce", "init_args": {"flag": str(tmp_path / "crashed")}}
    with pytest.raises(RunFailedError, match="out of luck") as failed:
        fit(overrides=arguments(tmp_path, name, crash))
    if name in CANNOT_BE_RESUMED:
        return
    resumed = resume(failed.value.run_id)
    for key in ("train/loss", "val/loss", "test/loss"):
        assert resumed.metrics[key] == whole.metrics[key], key


def test_the_trainer_has_a_checkpoint_callback_with_the_best_path_and_score(tables, tmp_path):
    asks = {"class_path": f"{CLASSES}.KeepsCheckpointPaths", "init_args": {"file": str(tmp_path / "seen.json")}}
    result = fit(overrides=arguments(tmp_path, "Timer", asks))
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert Path(seen["best"]).name == "best.ckpt"
    assert Path(seen["last"]).is_file()
    assert Path(seen["best"]).parent == Path(seen["folder"])
    assert result.run_id in seen["folder"]
    assert seen["monitor"] == "val/loss"
    assert seen["score"] == pytest.approx(result.metrics["selected/val/loss"])


def test_the_trainers_checkpoint_callback_is_the_users_if_there_is_one(tables, tmp_path):
    asks = {"class_path": f"{CLASSES}.KeepsCheckpointPaths", "init_args": {"file": str(tmp_path / "seen.json")}}
    fit(overrides=arguments(tmp_path, "ModelCheckpoint", asks))
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert Path(seen["best"]).name.startswith("epoch=")


def test_the_trainers_checkpoint_callback_is_that_of_the_module_also_when_resumed(tables, tmp_path):
    asks = {"class_path": f"{CLASSES}.KeepsCheckpointPaths", "init_args": {"file": str(tmp_path / "seen.json")}}
    crash = {"class_path": f"{CLASSES}.CrashOnce", "init_args": {"flag": str(tmp_path / "crashed")}}
    own = ["--model", f"{CLASSES}.SavesItself", "--test_weights", "callback"]
    with pytest.raises(RunFailedError, match="out of luck") as failed:
        fit(overrides=[*arguments(tmp_path, "Timer", asks, crash), *own])
    result = resume(failed.value.run_id)
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert Path(seen["best"]).name == f"own-epoch={result.selected_epoch}.ckpt"
    assert seen["monitor"] == "val/loss"


def test_checkpoints_are_saved_and_tested_without_enable_checkpointing(litlab, tables, tmp_path):
    outcome = litlab("fit", *arguments(tmp_path, "Timer"), "--trainer.enable_checkpointing", "false")
    assert outcome.code == 0
    assert "trainer.enable_checkpointing: false has no effect" in outcome.err
    assert "\ntest" in outcome.out
    assert "best.ckpt" in outcome.out


@pytest.mark.parametrize("name", ["RichProgressBar", "TQDMProgressBar"])
def test_a_progress_bar_replaces_litlabs(tables, tmp_path, capsys, name):
    fit(overrides=arguments(tmp_path, name))
    assert "epoch   0" not in capsys.readouterr().out


def test_what_a_callback_reports_is_shown(tables, tmp_path, caplog):
    fit(overrides=arguments(tmp_path, "ModelSummary"))
    assert "Trainable params" in caplog.text
    fit(overrides=arguments(tmp_path, "BatchSizeFinder"))
    assert "Finished batch size finder" in caplog.text


def test_a_callback_that_would_continue_another_run_is_refused_with_the_reason(tmp_path):
    with pytest.raises(UserError, match="starts the next fit from the file of OnExceptionCheckpoint"):
        fit(overrides=arguments(tmp_path, "OnExceptionCheckpoint"))


def test_averaged_weights_that_are_never_validated_are_the_last_ones(litlab, tables, tmp_path):
    outcome = litlab("fit", *arguments(tmp_path, "StochasticWeightAveraging"), "--test_weights", "last")
    assert outcome.code == 0, outcome.err
    assert "--test_weights last tests them" in outcome.err


def test_barebones_is_refused_with_the_reason(tmp_path):
    with pytest.raises(UserError, match="barebones switches off logging and checkpoints"):
        parse_config("fit", [*arguments(tmp_path, "LambdaCallback"), "--trainer.barebones", "true"]).build()


@pytest.mark.parametrize("profiler", ["simple", "advanced"])
def test_a_profiler_shows_its_report(tables, tmp_path, caplog, profiler):
    fit(overrides=[*arguments(tmp_path, "LambdaCallback"), "--trainer.profiler", profiler])
    assert "FIT Profiler Report" in caplog.text

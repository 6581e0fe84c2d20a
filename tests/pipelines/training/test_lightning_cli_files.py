"""Files that LightningCLI wrote run as they are, with the optimiser and the scheduler at their top level."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipelines.runtime.errors import UserError
from pipelines.training.failures import RunFailedError
from pipelines.training.fit import fit
from pipelines.training.resume import resume

CLASSES = "tests.fixtures.strangers.classes"
PROGRAM = f"""
from lightning.pytorch.cli import LightningCLI
from {CLASSES} import Net, Points
LightningCLI(Net, Points, subclass_mode_model=True, subclass_mode_data=True)
"""
CHOSEN = ["--optimizer=SGD", "--optimizer.lr=0.25", "--lr_scheduler=StepLR", "--lr_scheduler.step_size=1"]
OF_LITLAB = ["--data.n_train", "100", "--trainer.max_epochs", "1"]


@pytest.fixture(scope="module")
def file_of_lightning_cli(tmp_path_factory):
    """Return a function that has LightningCLI write its configuration, as its `--print_config` does."""
    folder = tmp_path_factory.mktemp("lightning")

    def write(*arguments):
        command = [sys.executable, "-c", PROGRAM, "fit", f"--model={CLASSES}.Net", f"--data={CLASSES}.Points"]
        command += ["--trainer.max_epochs=3", "--trainer.accelerator=cpu", *arguments, "--print_config"]
        root = Path(__file__).parents[3]
        path = folder / f"{len(list(folder.iterdir()))}.yaml"
        path.write_text(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)
        return path

    return write


def rates(run_id, checkpoint):
    state = torch.load(checkpoint.with_name("last.ckpt"), weights_only=True)
    return state["optimizer_states"][0]["param_groups"][0]["lr"], len(state["lr_schedulers"])


@pytest.mark.filterwarnings("ignore:No seed found")  # LightningCLI writes seed_everything: true
def test_a_file_of_lightning_cli_trains_as_it_is(tables, file_of_lightning_cli):
    path = file_of_lightning_cli()
    text = path.read_text()
    assert all(
        key in text for key in ("optimizer: null", "lr_scheduler: null", "weights_only: null", "ckpt_path: null")
    )
    result = fit(None, overrides=["-c", str(path), "--trainer.logger", "false"])
    assert result.metrics["test/loss"] > 0
    assert result.seed == 0


@pytest.mark.filterwarnings("ignore:No seed found")  # LightningCLI writes seed_everything: true
def test_the_optimizer_and_the_scheduler_of_the_file_are_used_and_a_resumed_run_keeps_them(
    tables, file_of_lightning_cli, tmp_path
):
    path = file_of_lightning_cli(*CHOSEN)
    whole = fit(None, overrides=["-c", str(path), "--trainer.logger", "false"])
    assert rates(whole.run_id, whole.checkpoint) == (pytest.approx(0.25 * 0.1**3), 1)
    crash = ["--trainer.callbacks+", f"{CLASSES}.CrashOnce", "--trainer.callbacks.flag", str(tmp_path / "crashed")]
    with pytest.raises(RunFailedError) as failed:
        fit(None, overrides=["-c", str(path), "--trainer.logger", "false", *crash])
    resumed = resume(failed.value.run_id)
    assert resumed.metrics["test/loss"] == whole.metrics["test/loss"]


def test_the_keys_may_be_given_for_litlabs_own_modules_and_are_params_of_the_run(litlab, tables):
    assert litlab("fit", "digits-mlp", *OF_LITLAB).code == 0
    outcome = litlab("fit", "digits-mlp", *OF_LITLAB, "--optimizer", "torch.optim.SGD", "--optimizer.lr", "0.3")
    assert outcome.code == 0, outcome.err
    assert "optimizer: replaces what MLP.configure_optimizers returns" in outcome.err
    newest, first = json.loads(litlab("runs", "--format", "json").out)
    assert newest["params"]["optimizer.lr"] == "0.3"
    assert not [key for key in first["params"] if key.startswith(("optimizer", "lr_scheduler", "weights_only"))]


def test_a_scheduler_without_an_optimizer_and_unsafe_loading_are_refused(tables, file_of_lightning_cli):
    path = str(file_of_lightning_cli())
    with pytest.raises(UserError, match="lr_scheduler needs an optimizer beside it"):
        fit(None, overrides=["-c", path, "--lr_scheduler=StepLR", "--lr_scheduler.step_size=1"])
    with pytest.raises(UserError, match="--trust restores objects"):
        fit(None, overrides=["-c", path, "--weights_only=false"])

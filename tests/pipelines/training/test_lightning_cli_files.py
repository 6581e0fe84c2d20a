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
import contextlib, json, sys
from lightning.pytorch.cli import LightningCLI
from {CLASSES} import Net, Points
arguments, *files = json.loads(sys.argv[1])
for path, more in files:
    with open(path, "w") as file, contextlib.redirect_stdout(file), contextlib.suppress(SystemExit):
        args = [*arguments, *more, "--print_config"]
        LightningCLI(Net, Points, subclass_mode_model=True, subclass_mode_data=True, args=args)
"""
CHOSEN = ["--optimizer=SGD", "--optimizer.lr=0.25", "--lr_scheduler=StepLR", "--lr_scheduler.step_size=1"]
OF_LITLAB = ["--data.n_train", "100", "--trainer.max_epochs", "1"]


@pytest.fixture(scope="module")
def files_of_lightning_cli(tmp_path_factory):
    """Two configurations as LightningCLI writes them, as its `--print_config` does: without and with CHOSEN."""
    folder = tmp_path_factory.mktemp("lightning")
    files = [(str(folder / "plain.yaml"), []), (str(folder / "chosen.yaml"), CHOSEN)]
    arguments = ["fit", f"--model={CLASSES}.Net", f"--data={CLASSES}.Points"]
    arguments += ["--trainer.max_epochs=3", "--trainer.accelerator=cpu"]
    command = [sys.executable, "-c", PROGRAM, json.dumps([arguments, *files])]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [Path(path) for path, _ in files]


def rates(run_id, checkpoint):
    state = torch.load(checkpoint.with_name("last.ckpt"), weights_only=True)
    return state["optimizer_states"][0]["param_groups"][0]["lr"], len(state["lr_schedulers"])


@pytest.mark.filterwarnings("ignore:No seed found")  # LightningCLI writes seed_everything: true
def test_a_file_of_lightning_cli_trains_as_it_is(tables, files_of_lightning_cli, monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)  # left by an earlier test
    path, _ = files_of_lightning_cli
    text = path.read_text()
    assert all(
        key in text for key in ("optimizer: null", "lr_scheduler: null", "weights_only: null", "ckpt_path: null")
    )
    result = fit(None, overrides=["-c", str(path), "--trainer.logger", "false"])
    assert result.metrics["test/loss"] > 0
    assert result.seed == 0


@pytest.mark.filterwarnings("ignore:No seed found")  # LightningCLI writes seed_everything: true
def test_the_optimizer_and_the_scheduler_of_the_file_are_used_and_a_resumed_run_keeps_them(
    tables, files_of_lightning_cli, tmp_path
):
    _, path = files_of_lightning_cli
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


@pytest.mark.filterwarnings("ignore:No seed found")
def test_a_scheduler_without_an_optimizer_and_unsafe_loading_are_refused(tables, files_of_lightning_cli):
    path = str(files_of_lightning_cli[0])
    with pytest.raises(UserError, match="lr_scheduler needs an optimizer beside it"):
        fit(None, overrides=["-c", path, "--lr_scheduler=StepLR", "--lr_scheduler.step_size=1"])
    with pytest.raises(UserError, match="--trust restores objects"):
        fit(None, overrides=["-c", path, "--weights_only=false"])

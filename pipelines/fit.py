"""`litlab fit`: configuration -> data -> module -> trainer -> one tracked run."""

import math
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_only

from datamodules.base import InMemoryDataModule
from modules.base import Learner
from modules.speed import flush_denormals
from pipelines import ahead, checkpoints, config, devices, faults, figures, interrupt, quiet, screen
from pipelines.config import LitlabCLI
from pipelines.errors import UserError
from pipelines.evaluate import Evaluation, by_kind, evaluate
from pipelines.export import exportable
from pipelines.keeper import Keeper
from pipelines.logger import RunLogger
from pipelines.progress import EpochBar
from pipelines.regions import Regions, is_plane
from pipelines.store import Store, store_uri, without_password
from pipelines.tracking import Run, recorded

HELP = """usage: litlab fit NAME [--KEY VALUE ...]         (litlab list shows the names)
       litlab fit -c FILE [-c FILE ...] [--KEY VALUE ...]

Trains an experiment, selects the best epoch on the validation set, measures
it once on the test set, and keeps configuration, metrics, figures, checkpoints
and the model in one MLflow run.

  NAME or PATH               an experiment, or a YAML file like theirs
  -c, --config FILE          one more YAML file; later ones win
  --seed_everything 3        seed of weights, order, dropout, augmentation (0)
  --seeds 5 --workers 2      five runs, with seeds from that one on, two at a
                               time, under a run that has mean and spread
  --data.batch_size 100      any key of the data,
  --data.n_train 250           such as the size of the training subset
  --model.dropout 0.3        any key of the model
  --model.optimizer.lr 0.01  any key of its optimiser (--model.optimizer SGD)
  --trainer.max_epochs 6     any argument of Lightning's Trainer
  --tracking_uri URI         sqlite:///FILE or http://SERVER (mlflow.db here)
  --name NAME                the MLflow experiment (the experiment's own name)
  --print_config             print the resulting configuration, and stop
  --full-help                every argument of the Trainer
  --model.help CLASS         every argument of a model, such as modules.mlp.MLP;
                               --data.help likewise"""


LOOK_EVERY = 50
"""Steps between two looks at the loss; the last one of an epoch is looked at, too."""


class StopAtNaN(Callback):
    """Ends a training whose loss is no longer a number: the weights are lost, and so is the time from then on."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % LOOK_EVERY == 0 or trainer.is_last_batch:
            loss = float(outputs["loss"]) if isinstance(outputs, Mapping) and "loss" in outputs else 0.0
            if not trainer.strategy.reduce_boolean_decision(math.isfinite(loss)):  # all processes stop together
                raise no_number(loss, trainer.global_step, trainer.current_epoch)


def no_number(loss: float, step: int, epoch: int) -> FloatingPointError:
    """What ends a training whose loss is no longer a number, in this process or in another one."""
    said = "no number in another process" if math.isfinite(loss) else loss
    where = f"step {step} (epoch {epoch})"
    return FloatingPointError(f"the training loss is {said} at {where}: try a smaller learning rate")


@dataclass
class Job:
    """A training that is ready to begin: its data are read, its parts are made."""

    cli: LitlabCLI
    data: LightningDataModule
    model: LightningModule
    trainer: Trainer
    keeper: Keeper
    regions: list[Regions]


def main(verb: str, argv: Sequence[str]) -> int:
    """`litlab fit NAME | PATH | -c FILE [--key value ...]`."""
    if not argv or {"-h", "--help"} & set(argv):
        print(HELP)
        return 0 if argv else 2
    quiet.lightning()
    if "--full-help" in argv:
        config.print_full_help()
    cli = config.parse(verb, argv)
    if cli.config.trainer.fast_dev_run:
        ahead.stop()
        return _dry_run(cli)
    job = prepare(cli)
    interrupt.exit_on_sigterm()
    if rank_zero_only.rank:  # type: ignore[attr-defined]  # the first process has the run, and the test
        ahead.stop()
        run_trainer(job)
        return 0
    command = shlex.join(["litlab", "fit", *argv])
    known = tags(cli, command) | devices.tags(job.trainer)
    store = Store(cli.config.tracking_uri, opened=False)  # to open it is not for the time before the first step
    run = Run(store, cli.config.name, run_name(argv, cli.config.seed_everything), known)
    return carry_out(job, run)


def carry_out(job: Job, run: Run, find_start: Callable[[], Path | None] = lambda: None) -> int:
    """Train, from a checkpoint if there is one, test, and end the run; returns the exit code."""
    try:
        with recorded(run):
            seconds = train(job, run, find_start())
            keep(job, run, seconds, test=True)
    except (KeyboardInterrupt, SystemExit, BrokenPipeError) as stop:
        print(f"litlab: stopped; run {run.run_id} is KILLED, with what it had logged until then", file=sys.stderr)
        print(f"litlab: to go on with it: {resuming(run)}", file=sys.stderr)
        if isinstance(stop, BrokenPipeError):  # nobody reads on, as in `litlab fit ... | head`
            raise
        return int(stop.code or 0) if isinstance(stop, SystemExit) else 130
    except Exception as error:
        ours = isinstance(job.model, Learner) and job.trainer.global_step == 0  # our parts, when they see the data
        refused = ours and isinstance(error, ValueError | MisconfigurationException)
        mend = faults.complaint(error, run.folder, job.trainer.world_size)
        if not refused and not mend and not isinstance(error, FloatingPointError):  # they say all there is to say
            traceback.print_exc()
        print(f"litlab: {mend or error}", file=sys.stderr)
        print(f"litlab: run {run.run_id} FAILED, with what it had logged until then", file=sys.stderr)
        if not refused and not isinstance(error, FloatingPointError):
            print(f"litlab: to go on with it: {resuming(run)}", file=sys.stderr)
        return 2 if refused else 1
    return 1 if run.refused else 0  # what the store has not taken yet is kept, and said


def prepare(cli: LitlabCLI, callbacks: Sequence[Callback] = (), *, test: bool = True, like: Job | None = None) -> Job:
    """Read the data and make all parts, so that what is wrong is said before there is a run.

    Args:
        cli: The configuration.
        callbacks: More callbacks than the configuration names.
        test: Whether to read the test set too.
        like: A job whose data are the same, which need not be read again.

    Raises:
        UserError: Something in the configuration or the data is to be mended.
    """
    data, model = _build(cli, test=test) if like is None else _build_like(cli, like)
    if not torch.cuda.is_available():  # Lightning has torch look for NVML; each step of Adam would look again
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    regions = [Regions(data)] if isinstance(data, InMemoryDataModule) and is_plane(data) else []
    keeper = Keeper(getattr(model, "monitor", "val/loss"), getattr(model, "mode", "min"))
    trainer = _trainer(cli, keeper, [*callbacks, *regions])
    devices.check(data, model, trainer)
    return Job(cli, data, model, trainer, keeper, regions)


def _build(cli: LitlabCLI, *, test: bool) -> tuple[LightningDataModule, LightningModule]:
    """Data that are read, and the module."""
    check(cli)
    data, model = cli.build()
    for stage in ("fit", "test") if test else ("fit",):
        config.load(data, stage)
    return data, model


def _build_like(cli: LitlabCLI, like: Job) -> tuple[LightningDataModule, LightningModule]:
    """The data of another job, and the module."""
    check(cli)
    _, model = cli.build()
    cli.config_init.data = like.data
    return like.data, model


def train(job: Job, run: Run, start: Path | None = None) -> float:
    """Write down what is known before the first step, then train; returns the seconds that it took.

    Args:
        job: The training.
        run: What it is written to.
        start: A checkpoint to go on from.
    """
    _write_down(job.cli, job.data, run)
    job.keeper.write_to(run)
    job.trainer.loggers = [RunLogger(run, job.trainer)]
    return run_trainer(job, start)


def run_trainer(job: Job, start: Path | None = None) -> float:
    """Train; returns the seconds that it took, with those before the checkpoint that it goes on from."""
    with interrupt.heard(job.trainer), flush_denormals():
        job.trainer.fit(job.model, datamodule=job.data, ckpt_path=start, weights_only=True)
    if torch.distributed.is_initialized():  # the test runs on one device, and its metrics must not wait for the others
        torch.distributed.destroy_process_group()
    return job.keeper.seconds


def keep(job: Job, run: Run, seconds: float, *, test: bool) -> None:
    """Keep and tell what came out; with `test`, open the test set, once, with the selected weights.

    Without it there are no test metrics, no figures of the test set and no exported model.
    """
    epoch, best = job.keeper.best_epoch, job.keeper.best
    if epoch is None:
        raise RuntimeError(f"no epoch was selected: the validation metric {job.keeper.monitor} was never logged")
    selected = {f"selected/{key}": value for key, value in run.metrics_at(epoch).items()}
    parameters = sum(parameter.numel() for parameter in job.model.parameters())
    facts = {"fit_seconds": seconds, "parameters": parameters, "selected_epoch": epoch}
    last_epoch = max(at for at, _ in run.history)
    run.log_metrics({**selected, **facts}, epoch)
    run.save_figure("learning_curves", figures.learning_curves(run.history, epoch))
    if test:
        tested = evaluate("test", job.cli, job.model, job.data, best)
        run.log_metrics(tested.metrics, epoch)
        _draw(job, run, tested, epoch)
        if isinstance(job.data, InMemoryDataModule):
            example = job.data.test_set.inputs[:2]
            known = {"classes": list(job.data.classes)} if job.data.classes else {}
            run.log_model(exportable(job.data.normalize, job.model), example, known, epoch)
    checkpoints.remove(best.with_name(checkpoints.PREVIOUS))  # nobody will go on from there
    _tell(job, run, f"epoch {epoch} of 0 to {last_epoch}, by {job.keeper.monitor}", seconds, parameters, epoch)


def check(cli: LitlabCLI) -> None:
    """Refuse what would leave no epoch to select, or another one than it seems."""
    trainer = cli.config.trainer
    if trainer.max_epochs == 0 or trainer.limit_val_batches == 0:
        raise UserError("trainer.max_epochs and trainer.limit_val_batches must not be 0: the best epoch is selected")
    if trainer.limit_test_batches == 0:
        raise UserError("trainer.limit_test_batches must not be 0: the selected epoch is tested")
    if any(word in str(trainer.strategy) for word in ("spawn", "fork", "notebook")):
        raise UserError(f"trainer.strategy: {trainer.strategy} leaves what was measured in other processes; use ddp")
    every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
    if every and epochs and 0 < epochs < every and not trainer.fast_dev_run:
        told = f"trainer.check_val_every_n_epoch {every} is more than trainer.max_epochs {epochs}"
        raise UserError(f"{told}: no epoch would be validated")
    if trainer.val_check_interval not in (None, 1.0):
        raise UserError("trainer.val_check_interval: litlab validates once after each epoch")
    if trainer.enable_checkpointing is False:
        raise UserError("trainer.enable_checkpointing: litlab keeps the best and the last epoch")


def _dry_run(cli: LitlabCLI) -> int:
    data, model = _build(cli, test=True)
    trainer = cli.make_trainer(callbacks=cli.callbacks, logger=False)
    with interrupt.heard(trainer):
        trainer.fit(model, datamodule=data)
        trainer.test(model, datamodule=data, verbose=False)
    print("fast_dev_run: training, validation and test steps work; nothing was logged")
    return 0


def tags(cli: LitlabCLI, command: str) -> dict[str, str]:
    """What a run says of where it comes from."""
    resolved = cli.resolved()
    return {
        "litlab.experiment": resolved["name"],
        "litlab.config_hash": config.config_hash(resolved),
        "litlab.command": without_password(command),
        "seed": str(resolved["seed_everything"]),
        "mlflow.source.name": f"litlab fit {resolved['name']}",  # the UI shows what follows its last slash
        "mlflow.source.type": "LOCAL",
        "mlflow.note.content": resolved["description"],
    }


def _write_down(cli: LitlabCLI, data: LightningDataModule, run: Run) -> None:
    """Log what is known before the first step: the configuration, and what the data are."""
    resolved = cli.resolved()
    if "class_names" in resolved["data"].get("init_args", {}):  # of a folder, which may change
        resolved["data"]["init_args"]["class_names"] = list(cli.config_init.data.classes)
    run.save_config(resolved)
    run.log_params(cli.params())
    if isinstance(data, InMemoryDataModule):
        run.log_dataset(data.describe())


def resuming(run: Run) -> str:
    """The command that goes on with a run."""
    uri = run.store.uri
    given = [] if uri == store_uri() else ["--tracking_uri", without_password(uri)]
    return shlex.join(["litlab", "resume", run.run_id, *given])


def run_name(argv: Sequence[str], seed: int) -> str:
    """What this run changes in the experiment, and its seed: "dropout=0.3 max_epochs=6 seed=0"."""
    skipped = ("seed_everything", "tracking_uri", "data_dir", "name", "config", "enable_progress_bar")
    pairs = [token.partition("=")[::2] for token in argv if token.startswith("--") and "=" in token]
    pairs += [(key, value) for key, value in pairwise(argv) if key.startswith("--") and "=" not in key]
    changes = [(key.rpartition(".")[2].lstrip("-"), value) for key, value in pairs]
    words = [f"{key}={value}" for key, value in changes if key not in skipped]
    return " ".join([*words, f"seed={seed}"])[:200]


def _trainer(cli: LitlabCLI, keeper: Keeper, more: Sequence[Callback]) -> Trainer:
    bar = [] if cli.config.trainer.enable_progress_bar is False else [EpochBar()]
    others = any(isinstance(callback, Checkpoint) for callback in cli.callbacks)
    callbacks = [keeper, *cli.callbacks, *more, StopAtNaN(), *bar]
    return cli.make_trainer(callbacks=callbacks, logger=False, enable_checkpointing=others)


def _tell(job: Job, run: Run, selected: str, seconds: float, parameters: int, epoch: int) -> None:
    """The results on the screen."""
    uri = job.cli.config.tracking_uri
    facts = {
        "selected": selected,
        "training": screen.duration(seconds),
        "parameters": f"{parameters:,}",
        "checkpoint": str(job.keeper.best),
        "run": run.run_id,
        "look": "litlab ui" + (f" --tracking_uri {without_password(run.store.uri)}" if uri else ""),
    }
    rows = {split: by_kind(run.metrics_at(epoch), split) for split in ("train", "val", "test")}
    screen.results_table(f"{job.cli.config.name}, seed {job.cli.config.seed_everything}", rows, facts)


def _draw(job: Job, run: Run, tested: Evaluation, epoch: int) -> None:
    """What the test set looks like to the model."""
    if not isinstance(job.data, InMemoryDataModule):
        return
    outputs = {name: part.float().numpy() for name, part in tested.outputs.items()}
    drawn = figures.of_outputs(job.data.test_set.inputs.numpy(), outputs, job.data.classes)
    for kept in job.regions:
        drawn["decision_regions"] = figures.decision_regions(kept.maps(epoch), kept.plane.corners, job.data.test_set)
    for name, figure in drawn.items():
        run.save_figure(name, figure)

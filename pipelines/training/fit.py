"""`litlab fit`: configuration -> data -> module -> trainer -> one tracked run."""

import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only

from modules.base import Learner
from modules.speed import flush_denormals
from pipelines.config.cli import LitlabCLI, parse_config, print_full_help
from pipelines.config.distributed import process_count_tags
from pipelines.runtime.signals import exit_on_sigterm, reraise_keyboard_interrupt
from pipelines.runtime.silence import silence_lightning
from pipelines.tracking import prestart as ahead
from pipelines.tracking.run import Run, recorded
from pipelines.tracking.store import Store
from pipelines.training.failures import diagnose
from pipelines.training.job import Training, build_parts, prepare_training
from pipelines.training.logger import RunLogger
from pipelines.training.results import finalize
from pipelines.training.run_metadata import log_inputs, resume_command, run_name, run_tags

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


def main(verb: str, argv: Sequence[str]) -> int:
    """`litlab fit NAME | PATH | -c FILE [--key value ...]`."""
    if not argv or {"-h", "--help"} & set(argv):
        print(HELP)
        return 0 if argv else 2
    silence_lightning()
    if "--full-help" in argv:
        print_full_help()
    cli = parse_config(verb, argv)
    if cli.config.trainer.fast_dev_run:
        ahead.stop()
        return _dry_run(cli)
    job = prepare_training(cli)
    exit_on_sigterm()
    if rank_zero_only.rank:  # type: ignore[attr-defined]  # the first process has the run, and the test
        ahead.stop()
        run_trainer(job)
        return 0
    command = shlex.join(["litlab", "fit", *argv])
    known = run_tags(cli, command) | process_count_tags(job.trainer)
    store = Store(cli.config.tracking_uri, opened=False)  # to open it is not for the time before the first step
    run = Run(store, cli.config.name, run_name(argv, cli.config.seed_everything), known)
    return run_training(job, run)


def run_training(job: Training, run: Run, find_start: Callable[[], Path | None] = lambda: None) -> int:
    """Train, from a checkpoint if there is one, test, and end the run; returns the exit code."""
    try:
        with recorded(run):
            seconds = train(job, run, find_start())
            finalize(job, run, seconds, test=True)
    except (KeyboardInterrupt, SystemExit, BrokenPipeError) as stop:
        print(f"litlab: stopped; run {run.run_id} is KILLED, with what it had logged until then", file=sys.stderr)
        print(f"litlab: to go on with it: {resume_command(run)}", file=sys.stderr)
        if isinstance(stop, BrokenPipeError):  # nobody reads on, as in `litlab fit ... | head`
            raise
        return int(stop.code or 0) if isinstance(stop, SystemExit) else 130
    except Exception as error:
        ours = isinstance(job.model, Learner) and job.trainer.global_step == 0  # our parts, when they see the data
        refused = ours and isinstance(error, ValueError | MisconfigurationException)
        mend = diagnose(error, run.folder, job.trainer.world_size)
        if not refused and not mend and not isinstance(error, FloatingPointError):  # they say all there is to say
            traceback.print_exc()
        print(f"litlab: {mend or error}", file=sys.stderr)
        print(f"litlab: run {run.run_id} FAILED, with what it had logged until then", file=sys.stderr)
        if not refused and not isinstance(error, FloatingPointError):
            print(f"litlab: to go on with it: {resume_command(run)}", file=sys.stderr)
        return 2 if refused else 1
    return 1 if run.refused else 0  # what the store has not taken yet is kept, and said


def train(job: Training, run: Run, start: Path | None = None) -> float:
    """Write down what is known before the first step, then train; returns the seconds that it took.

    Args:
        job: The training.
        run: What it is written to.
        start: A checkpoint to go on from.
    """
    log_inputs(job.cli, job.data, run)
    job.keeper.write_to(run)
    job.trainer.loggers = [RunLogger(run, job.trainer)]
    return run_trainer(job, start)


def run_trainer(job: Training, start: Path | None = None) -> float:
    """Train; returns the seconds that it took, with those before the checkpoint that it goes on from."""
    with reraise_keyboard_interrupt(job.trainer), flush_denormals():
        job.trainer.fit(job.model, datamodule=job.data, ckpt_path=start, weights_only=True)
    if torch.distributed.is_initialized():  # the test runs on one device, and its metrics must not wait for the others
        torch.distributed.destroy_process_group()
    return job.keeper.seconds


def _dry_run(cli: LitlabCLI) -> int:
    data, model = build_parts(cli, test=True)
    trainer = cli.make_trainer(callbacks=cli.callbacks, logger=False)
    with reraise_keyboard_interrupt(trainer):
        trainer.fit(model, datamodule=data)
        trainer.test(model, datamodule=data, verbose=False)
    print("fast_dev_run: training, validation and test steps work; nothing was logged")
    return 0

"""Set-up, messages and reporting of a child process."""

import contextlib
import math
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from multiprocessing import connection, parent_process
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from pipelines.config.cli import LitlabCLI
from pipelines.runtime.errors import StoppedError, UserError
from pipelines.runtime.log import configure_logging
from pipelines.runtime.process import exit_with_rank_zero
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store
from pipelines.tracking.tags import SELECTED_EPOCH
from pipelines.training.run_metadata import run_name, run_tags
from sweeps.workers.job import Job, visible_gpus

GRACE_S = 20.0  # for a training whose controller has died


class RefusedError(UserError):
    """What ends this training would end any other trial's, too."""


class Reporter(Callback):
    """Tells the controller the metric of each epoch; ends the training, on all devices together, if it says so.

    Without a metric it tells what the model monitors, for the screen, and refuses nothing.
    """

    def __init__(self, metric: str | None, pipe: connection.Connection | None) -> None:
        self._metric, self.pipe = metric, pipe
        self.pruned_at: int | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        value = self.value(trainer, pl_module)
        stop = False
        if trainer.is_global_zero and self.pipe is not None:
            self.report(trainer.current_epoch + 1, value)
            stop = self.should_stop()
        if trainer.strategy.broadcast(stop):
            self.pruned_at = trainer.current_epoch
            trainer.should_stop = True

    def value(self, trainer: Trainer, pl_module: LightningModule) -> float | None:
        """What is told of the epoch that has been validated.

        Raises:
            RefusedError: There is no such metric.
            FloatingPointError: It is not finite.
        """
        measured = trainer.callback_metrics
        if self._metric is None:
            key = getattr(pl_module, "monitor", "val/loss")
            return float(measured[key]) if key in measured else None
        if self._metric not in measured:
            logged = ", ".join(sorted(key for key in measured if key.startswith("val/")))
            raise RefusedError(f"metric {self._metric}: the experiment logs {logged or 'no validation metric'}")
        value = float(measured[self._metric])
        if not math.isfinite(value):
            raise FloatingPointError(f"{self._metric} is {value} in epoch {trainer.current_epoch}")
        return value

    def report(self, epoch: int, value: float | None) -> None:
        """Tell the controller; it will answer."""
        assert self.pipe is not None
        send(self.pipe, ("epoch", epoch, value))

    def should_stop(self) -> bool:
        """Whether the controller ends the training.

        Raises:
            StoppedError: It has died.
        """
        assert self.pipe is not None
        try:
            return bool(self.pipe.recv())
        except (EOFError, OSError) as error:
            raise StoppedError("its controller died") from error


def final_message(error: BaseException) -> tuple[str, str]:
    """What a training that did not come to its end says last."""
    if isinstance(error, StoppedError):
        return "pruned", str(error)
    if isinstance(error, RefusedError):
        return "refused", str(error)
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "stopped", describe_error(error)
    if not isinstance(error, UserError | FloatingPointError):
        traceback.print_exception(error)
    return "failed", describe_error(error)


def create_run(job: Job, cli: LitlabCLI, more: Mapping[str, str] | None = None) -> Run:
    """The training's run, with more tags if they are given."""
    tags = {**run_tags(cli, shlex.join(["litlab", "fit", *job.arguments_with_seed])), **job.tags, **(more or {})}
    try:
        return Run(Store(job.tracking_uri), job.experiment, job.run_name or run_name(job.arguments, job.seed), tags)
    except UserError as error:  # the store is away
        raise RefusedError(str(error)) from error


def selected_metrics(run: Run) -> dict[str, float]:
    """A finished run's metrics at the selected epoch."""
    return run.metrics_at(max(at for at, metrics in run.history if SELECTED_EPOCH in metrics))


def setup_process(job: Job) -> None:
    """Make this process one of its own: its group, its output, its share of the machine, and its end."""
    configure_logging()
    os.setsid()  # Ctrl-C is for the controller, which tells its children
    exit_with_rank_zero()
    try:
        log = os.open(job.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    except FileNotFoundError:  # the controller has gone, and its folder
        sys.exit(1)
    for stream in (1, 2):
        os.dup2(log, stream)
    if gpus := visible_gpus(job, torch.cuda.device_count()):
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    share = max(1, job.threads // job.devices)
    os.environ["OMP_NUM_THREADS"] = str(share)  # for further devices' processes
    torch.set_num_threads(share)
    threading.Thread(target=_end_with_controller, daemon=True).start()


def _end_with_controller() -> None:
    """Stop as on SIGTERM when the controller is gone; at once if that takes too long."""
    controller = parent_process()
    if controller is None:
        return
    controller.join()
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(GRACE_S)
    os.killpg(os.getpid(), signal.SIGKILL)


def send(pipe: connection.Connection, message: tuple[Any, ...]) -> None:
    """Tell the controller something, if it is still there."""
    with contextlib.suppress(OSError):  # the controller may have gone
        pipe.send(message)


def describe_error(error: BaseException) -> str:
    said = str(error).strip().splitlines()
    if isinstance(error, UserError | FloatingPointError):
        return said[0] if said else type(error).__name__
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__

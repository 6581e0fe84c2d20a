"""Set-up, messages and reporting of a worker process."""

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

GRACE_S = 20.0  # from the controller's death until the training is killed


class RefusedError(UserError):
    """An error that would end every other trial in the same way."""


class Reporter(Callback):
    """Report a metric to the controller after each epoch, and stop the training on all devices if the answer says so.

    Args:
        metric: Validation metric to report. None reports the model's monitored metric, if it is logged.
        pipe: Connection to the controller; None on further devices.

    Attributes:
        pruned_at: Index of the epoch after which the controller stopped the training; None if it did not.
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
        """Return the metric of the epoch that has just been validated.

        Raises:
            RefusedError: The experiment does not log the metric.
            FloatingPointError: The metric is not finite.
        """
        logged = trainer.callback_metrics
        if self._metric is None:
            key = getattr(pl_module, "monitor", "val/loss")
            return float(logged[key]) if key in logged else None
        if self._metric not in logged:
            available = ", ".join(sorted(key for key in logged if key.startswith("val/")))
            raise RefusedError(f"metric {self._metric}: the experiment logs {available or 'no validation metric'}")
        value = float(logged[self._metric])
        if not math.isfinite(value):
            raise FloatingPointError(f"{self._metric} is {value} in epoch {trainer.current_epoch}")
        return value

    def report(self, epoch: int, value: float | None) -> None:
        """Send the metric of an epoch to the controller, which then answers."""
        assert self.pipe is not None
        send(self.pipe, ("epoch", epoch, value))

    def should_stop(self) -> bool:
        """Wait for the controller's answer, and return whether the training stops here.

        Raises:
            StoppedError: The controller died.
        """
        assert self.pipe is not None
        try:
            return bool(self.pipe.recv())
        except (EOFError, OSError) as error:
            raise StoppedError("its controller died") from error


def final_message(error: BaseException) -> tuple[str, str]:
    """Return the last message of a training that raised: "pruned", "refused", "stopped" or "failed", and the reason."""
    if isinstance(error, StoppedError):
        return "pruned", str(error)
    if isinstance(error, RefusedError):
        return "refused", str(error)
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "stopped", describe_error(error)
    if not isinstance(error, UserError | FloatingPointError):
        traceback.print_exception(error)
    return "failed", describe_error(error)


def create_run(job: Job, cli: LitlabCLI, extra_tags: Mapping[str, str] | None = None) -> Run:
    """Create the run of a job.

    Raises:
        RefusedError: The tracking store cannot be reached.
    """
    command = shlex.join(["litlab", "fit", *job.arguments_with_seed])
    tags = {**run_tags(cli, command), **job.tags, **(extra_tags or {})}
    name = job.run_name or run_name(job.arguments, job.seed)
    try:
        return Run(Store(job.tracking_uri), job.experiment, name, tags)
    except UserError as error:
        raise RefusedError(str(error)) from error


def selected_metrics(run: Run) -> dict[str, float]:
    """Return a finished run's metrics at the selected epoch."""
    return run.metrics_at(max(step for step, metrics in run.history if SELECTED_EPOCH in metrics))


def setup_process(job: Job) -> None:
    """Set up this process for a job: process group, log file, GPUs, threads, and its end if the controller dies."""
    configure_logging()
    os.setsid()  # Ctrl-C goes to the controller only, which stops its workers
    exit_with_rank_zero()
    try:
        log = os.open(job.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    except FileNotFoundError:  # the controller and its folder are gone
        sys.exit(1)
    for stream in (1, 2):
        os.dup2(log, stream)
    if gpus := visible_gpus(job, torch.cuda.device_count()):
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    share = max(1, job.threads // job.devices)
    os.environ["OMP_NUM_THREADS"] = str(share)  # for the processes of further devices
    torch.set_num_threads(share)
    threading.Thread(target=_exit_with_controller, daemon=True).start()


def _exit_with_controller() -> None:
    """When the controller dies, send SIGTERM to this process, and SIGKILL to its group after GRACE_S seconds."""
    controller = parent_process()
    if controller is None:
        return
    controller.join()
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(GRACE_S)
    os.killpg(os.getpid(), signal.SIGKILL)


def send(pipe: connection.Connection, message: tuple[Any, ...]) -> None:
    """Send a message to the controller, if it is still alive."""
    with contextlib.suppress(OSError):
        pipe.send(message)


def describe_error(error: BaseException) -> str:
    """Return the first line of an error's message, with the type of an unexpected error."""
    lines = str(error).strip().splitlines()
    if isinstance(error, UserError | FloatingPointError):
        return lines[0] if lines else type(error).__name__
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__

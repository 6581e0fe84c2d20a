"""What every worker process needs: its setup, its messages to the controller, and the run of its job."""

import contextlib
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from multiprocessing import connection, parent_process
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only

from pipelines.config.cli import LitlabCLI
from pipelines.runtime.errors import StoppedError, UserError
from pipelines.runtime.log import configure_logging
from pipelines.runtime.process import (
    GC_THRESHOLDS,
    SIGKILL,
    exit_with_rank_zero,
    signal_process_group,
    start_process_group,
)
from pipelines.runtime.user_traceback import user_traceback
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store
from pipelines.tracking.tags import SELECTED_EPOCH
from pipelines.training.job import Training
from pipelines.training.run_metadata import run_name, run_tags
from sweeps.workers.gpus import VARIABLE, listed_gpus, share_of
from sweeps.workers.job import Job

GRACE_S = 20.0  # from the controller's death until the training is killed


class RefusedError(UserError):
    """An error that would end every other trial in the same way."""


def setup_process(job: Job, *, checks: bool = False) -> None:
    """Set up this process for a job: process group, log file, GPUs, threads, and its end if the controller dies.

    Args:
        job: The job.
        checks: Whether its experiment is only checked, for which it sees all GPUs: how many it uses is not known yet.
    """
    gc.freeze()  # else the search for garbage reads, and so copies, all memory of the fork server
    gc.set_threshold(*GC_THRESHOLDS)
    configure_logging()
    start_process_group()  # Ctrl-C goes to the controller only, which stops its workers
    exit_with_rank_zero()
    try:
        log = os.open(job.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    except FileNotFoundError:  # the controller and its folder are gone
        sys.exit(1)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ.pop("FORCE_COLOR", None)  # of a notebook; a log has no colours
    if gpus := job.gpus or listed_gpus() or [str(index) for index in range(torch.cuda.device_count())]:
        os.environ[VARIABLE] = ",".join(gpus if checks else share_of(gpus, job.slot, job.devices))
    share = max(1, job.threads // job.devices)
    os.environ["OMP_NUM_THREADS"] = str(share)  # for the processes of further devices
    torch.set_num_threads(share)
    threading.Thread(target=_exit_with_controller, daemon=True).start()


def join_nodes(job: Job) -> None:
    """Have Lightning train together with the processes of other nodes; do nothing for a training on one."""
    if job.nodes > 1:
        host, _, port = job.main_address.rpartition(":")
        os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": port, "NODE_RANK": str(job.node_rank)}
        rank_zero_only.rank = job.node_rank * job.devices  # type: ignore[attr-defined]


def _exit_with_controller() -> None:
    """When the controller dies, send SIGTERM to this process, and SIGKILL to its group after GRACE_S seconds."""
    if (controller := parent_process()) is None:
        return
    controller.join()
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(GRACE_S)
    signal_process_group(os.getpid(), SIGKILL)


def send(pipe: connection.Connection, message: tuple[Any, ...]) -> None:
    """Send a message to the controller, if it is still alive."""
    with contextlib.suppress(OSError):
        pipe.send(message)


def final_message(error: BaseException) -> tuple[str, str]:
    """Return the last message of a training that raised: "pruned", "refused", "stopped" or "failed", and the reason."""
    if isinstance(error, StoppedError):
        return "pruned", str(error)
    if isinstance(error, RefusedError):
        return "refused", str(error)
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "stopped", describe_error(error)
    if found := user_traceback(error):
        found.show()
        return "failed", found.line
    if not isinstance(error, UserError | FloatingPointError):
        traceback.print_exception(error)
    return "failed", describe_error(error)


def describe_error(error: BaseException) -> str:
    """Return the first line of an error's message, with the type of an unexpected error."""
    kind, lines = type(error).__name__, str(error).strip().splitlines()
    if not lines:
        return kind
    return lines[0] if isinstance(error, UserError | FloatingPointError) else f"{kind}: {lines[0]}"


def set_selection(job: Job, training: Training) -> None:
    """Have a training select its weights as its study does."""
    selection = training.checkpoint_callback.selection
    selection.breaks_ties = job.breaks_ties
    selection.is_required = not job.selects  # the callback that reports the metric refuses the experiment


def create_run(job: Job, cli: LitlabCLI, extra_tags: Mapping[str, str] | None = None) -> Run:
    """Create the run of a job.

    Raises:
        RefusedError: The tracking store cannot be reached.
    """
    tags = {**run_tags(cli, "fit", job.arguments_with_seed), **job.tags, **(extra_tags or {})}
    name = job.run_name or run_name(job.arguments, job.seed)
    try:
        return Run(Store(job.tracking_uri), job.experiment, name, tags, system_metrics=job.system_metrics)
    except UserError as error:
        raise RefusedError(str(error)) from error


def max_epochs(trainer: Trainer) -> int | None:
    """Return after how many epochs a training ends; None if other limits or none are set."""
    return trainer.max_epochs if (trainer.max_epochs or 0) > 0 else None


def selected_metrics(run: Run) -> dict[str, float]:
    """Return a finished run's metrics at the selected epoch."""
    return run.metrics_at(max(step for step, metrics in run.history if SELECTED_EPOCH in metrics))

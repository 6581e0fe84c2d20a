"""Set up a worker process for a job, and create the run of the job."""

import os
import signal
import sys
import threading
from collections.abc import Mapping
from multiprocessing import parent_process

import torch

from pipelines.config.cli import LitlabCLI
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import configure_logging
from pipelines.runtime.process import SIGKILL, exit_with_rank_zero, signal_process_group, start_process_group
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store
from pipelines.tracking.tags import SELECTED_EPOCH
from pipelines.training.run_metadata import run_name, run_tags
from sweeps.workers.job import Job, visible_gpus
from sweeps.workers.messages import RefusedError

GRACE_S = 20.0  # from the controller's death until the training is killed


def create_run(job: Job, cli: LitlabCLI, extra_tags: Mapping[str, str] | None = None) -> Run:
    """Create the run of a job.

    Raises:
        RefusedError: The tracking store cannot be reached.
    """
    tags = {**run_tags(cli, "fit", job.arguments_with_seed), **job.tags, **(extra_tags or {})}
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
    start_process_group()  # Ctrl-C goes to the controller only, which stops its workers
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
    signal_process_group(os.getpid(), SIGKILL)

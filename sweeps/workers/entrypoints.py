"""Functions that a worker process starts in. Importing this module is cheap."""

from multiprocessing import connection
from typing import Any

from sweeps.workers.job import Job


def train_job(job: Job, pipe: connection.Connection) -> None:
    """Where a process for one training begins."""
    from sweeps.workers import worker

    worker.begin(job, pipe)


def train_stack(jobs: list[Job], pipes: list[connection.Connection]) -> None:
    """Where a process for several trainings as one begins."""
    from sweeps.workers import stacked_trials as stacked

    stacked.begin(jobs, pipes)


def check_experiment(job: Job, ends: list[dict[str, Any]], pipe: connection.Connection) -> None:
    """Where a process begins that only looks at an experiment."""
    from sweeps.workers import worker

    worker.check(job, ends, pipe)

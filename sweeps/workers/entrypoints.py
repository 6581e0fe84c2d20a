"""Functions that a worker process starts in. Importing this module is cheap."""

from multiprocessing import connection
from typing import Any

from sweeps.workers.job import Job


def train_job(job: Job, pipe: connection.Connection) -> None:
    """Train one job."""
    from sweeps.workers import worker

    worker.run_job(job, pipe)


def train_stack(jobs: list[Job], pipes: list[connection.Connection]) -> None:
    """Train several jobs together, in one process."""
    from sweeps.workers import stacked_trials as stacked

    stacked.begin(jobs, pipes)


def check_experiment(job: Job, configurations: list[dict[str, Any]], pipe: connection.Connection) -> None:
    """Check an experiment without training it."""
    from sweeps.workers import worker

    worker.check_experiment(job, configurations, pipe)

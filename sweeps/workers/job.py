"""Description of one training that is passed to a worker process. Imports nothing heavy."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Job:
    """One training, as plain values that a worker process receives.

    Attributes:
        arguments: Arguments of the verb, without the seed: the experiment, then keys with values.
        seed: Seed of the run.
        experiment: Name of the MLflow experiment of the run.
        tracking_uri: Tracking store of the run.
        run_name: Name of the run; "" takes the default name of `litlab fit`.
        tags: Tags of the run, in addition to those that every run has.
        metric: Validation metric to report after each epoch; it must be logged and finite. None reports the metric that
            the model monitors, if it is logged.
        pruner: Name of the pruner, for the reason of a run that is pruned.
        test: Whether to measure the test set at the end.
        log_file: File that receives the output of the process.
        job_file: This job as JSON, for the other processes of a training on several devices.
        threads: CPU threads of the training, all devices together.
        slot: Index of the pool's slot that it runs in, from 0.
        devices: Number of GPUs that it uses, if the machine has any.
        stacked: Whether it is trained in one process together with others.
        verb: "fit"; "baseline", which uses only arguments, seed, experiment and tracking_uri; or "explain", which uses
            only arguments and tracking_uri.
    """

    arguments: list[str]
    seed: int = 0
    experiment: str = ""
    tracking_uri: str = ""
    run_name: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    metric: str | None = None
    pruner: str = ""
    test: bool = False
    log_file: str = os.devnull
    job_file: str = ""
    threads: int = 1
    slot: int = 0
    devices: int = 1
    stacked: bool = False
    verb: str = "fit"

    @property
    def arguments_with_seed(self) -> list[str]:
        return [*self.arguments, "--seed_everything", str(self.seed)]

    @property
    def label(self) -> str:
        """Name of the training in the live display."""
        return self.run_name or f"seed={self.seed}"


def write_job(job: Job, path: Path) -> Job:
    """Write a job to a JSON file, set its `job_file`, and return it."""
    job.job_file = str(path)
    path.write_text(json.dumps(asdict(job)))
    return job


def as_arguments(values: dict[str, Any]) -> list[str]:
    """Return keys and values as command-line arguments: `--key=value`."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    return [f"--{key}={text}" for key, text in texts.items()]


def visible_gpus(job: Job, count: int) -> str:
    """Return the value of CUDA_VISIBLE_DEVICES for a job, so that jobs in different slots use different GPUs.

    Args:
        job: The job, with its slot and its number of devices.
        count: Number of GPUs that torch sees.

    Returns:
        GPUs from this process's CUDA_VISIBLE_DEVICES or, if it is not set, from all of the machine; "" without a GPU.
    """
    if not count:
        return ""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    gpus = [name for name in visible.split(",") if name]
    first = job.slot * job.devices
    return ",".join(gpus[(first + offset) % len(gpus)] for offset in range(min(job.devices, len(gpus))))

"""What a controller tells a child process; imports nothing heavy."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Job:
    """One training: everything that a process needs to know, as plain values.

    Attributes:
        arguments: Of the verb: the experiment, and keys with values.
        seed: The run's seed.
        experiment: The MLflow experiment that the run goes to.
        tracking_uri: Where runs are kept.
        run_name: The run's name; "" leaves it to `litlab fit`.
        tags: The run's tags, beside those of any run.
        metric: The validation metric to report after each epoch, which must be there and finite; None reports what the
            model monitors, whatever that is.
        pruner: What the reason says if the training is ended early.
        test: Whether the test set is opened at the end.
        log_file: The file that takes what the training prints.
        job_file: Where this specification is written down, for the other processes of a training on several devices.
        threads: How many CPU threads the training may use.
        slot: Which of the trainings side by side this is, from 0.
        devices: How many GPUs it uses, if there are any.
        stacked: Whether it is one of several that train as one.
        verb: "fit"; or "baseline", which takes of all this arguments, seed, experiment and tracking_uri; or "explain",
            which takes arguments and tracking_uri.
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
        """What to call it on a screen."""
        return self.run_name or f"seed={self.seed}"


def write_job(job: Job, path: Path) -> Job:
    """Write the specification down, and return it with its place."""
    job.job_file = str(path)
    path.write_text(json.dumps(asdict(job)))
    return job


def as_arguments(values: dict[str, Any]) -> list[str]:
    """Keys and values as on the command line."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    return [f"--{key}={text}" for key, text in texts.items()]


def visible_gpus(job: Job, count: int) -> str:
    """The GPUs of this training, of those that the machine or CUDA_VISIBLE_DEVICES offers; "" where there are none."""
    if not count:
        return ""
    given = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    offered = [name for name in given.split(",") if name]
    number = job.devices
    first = job.slot * number
    return ",".join(offered[(first + place) % len(offered)] for place in range(min(number, len(offered))))

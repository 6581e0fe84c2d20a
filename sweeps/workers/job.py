"""One training as plain values that a worker process receives. Imports nothing heavy."""

import json
import os
from dataclasses import dataclass, field
from typing import Any

from pipelines.tracking.tags import FOLD_PARAM

IN_SPACE = "space: "  # with which the message begins if a value of a search space is refused


@dataclass
class Job:
    """One training.

    Attributes:
        arguments: Arguments of the verb, without the seed: the experiment, then keys with values.
        experiment: MLflow experiment of the run.
        run_name: Name of the run; "" takes the default name of `litlab fit`.
        tags: Tags of the run, in addition to those that every run has.
        metric: Validation metric to report after each epoch; it must be logged and finite. None reports the metric that
            the model monitors, if it is logged.
        selects: Whether the arguments name the metric as `--monitor`; the experiment itself names none.
        breaks_ties: See `Selection.breaks_ties`.
        pruner: Name of the pruner, for the reason of a run that is pruned.
        test: Whether to measure the test set at the end.
        folds: Number of folds of the data, as among the arguments; fold `seed` modulo `folds` validates. None without.
        devices: Number of GPUs that it uses, if the machine has any.
        stacked: Whether it is trained in one process together with others.
        verb: "fit"; "baseline", which uses only arguments, seed, experiment and tracking_uri; or "explain", which uses
            only arguments and tracking_uri.
        log_file: File that receives the output of the process. The pool sets this attribute and those below.
        job_file: This job as JSON, for the other processes of a training on several devices.
        threads: CPU threads of the training, all devices together.
        system_metrics: Whether its run measures the machine.
        slot: Index of the pool's slot that it runs in, from 0.
        gpus: The GPUs of all trainings of the pool, as CUDA_VISIBLE_DEVICES names them; empty if unknown.
        sharers: Number of trainings, or of stacks, that share its GPU.
        values: The searched keys with their values, which are among the arguments too.
        nodes: Number of nodes that it is trained on, with `devices` processes on each.
        node_rank: Which of these nodes this is, from 0. The pool sets this attribute and the next one.
        main_address: HOST:PORT at which the processes of several nodes meet.
    """

    arguments: list[str]
    seed: int = 0
    experiment: str = ""
    tracking_uri: str = ""
    run_name: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    metric: str | None = None
    selects: bool = False
    breaks_ties: bool = True
    pruner: str = ""
    test: bool = False
    folds: int | None = None
    devices: int = 1
    stacked: bool = False
    verb: str = "fit"
    log_file: str = os.devnull
    job_file: str = ""
    threads: int = 1
    system_metrics: bool = False
    slot: int = 0
    gpus: list[str] = field(default_factory=list)
    sharers: int = 1
    values: dict[str, Any] = field(default_factory=dict)
    nodes: int = 1
    node_rank: int = 0
    main_address: str = ""

    @property
    def arguments_with_seed(self) -> list[str]:
        fold = [] if self.folds is None else [f"--{FOLD_PARAM}={self.seed % self.folds}"]
        return [*self.arguments, *fold, "--seed_everything", str(self.seed)]

    @property
    def label(self) -> str:
        """Name of the training in the live display."""
        fold = "" if self.folds is None else f"fold={self.seed % self.folds} "
        return self.run_name or f"{fold}seed={self.seed}"


def as_arguments(values: dict[str, Any]) -> list[str]:
    """Return keys and values as command-line arguments: `--key=value`."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    return [f"--{key}={text}" for key, text in texts.items()]

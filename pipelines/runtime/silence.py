"""Silence Lightning warnings that do not apply here."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

IRRELEVANT_WARNINGS = (
    ".*does not have many workers.*",  # data are in memory: worker processes only add cost
    ".*`tensorboardX` has been removed.*",  # metrics go to MLflow
    ".*You are using a CUDA device .* that has Tensor Cores.*",
    ".*available but not used.*",  # the configuration chooses the accelerator
    ".*exists and is not empty.*",  # the run's own folder
    ".*litlogger.*",
    ".*callbacks used to create the checkpoint need to be provided.*",  # an evaluation saves no checkpoints
    ".*your dataloader is not resumable.*",  # its position is restored; see checkpoints/position.py
    ".*isinstance.treespec, LeafSpec.* is deprecated.*",  # between Lightning 2.6 and torch 2.15
)


LOGGING_INTERVAL = ".*smaller than the logging interval.*"


@contextmanager
def hidden_warnings(*, per_step: bool) -> Iterator[None]:
    """Hide Lightning's warning of a logging interval longer than an epoch, unless values of steps are logged."""
    with warnings.catch_warnings():
        if not per_step:
            warnings.filterwarnings("ignore", message=LOGGING_INTERVAL)
        yield


def silence_lightning() -> None:
    """Hide Lightning's info messages and `IRRELEVANT_WARNINGS`; other warnings and errors are still shown.

    Messages of callbacks and profilers, which only run if the user asked for them, are shown too.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("callbacks", "profilers", "tuner"):
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.INFO)
    for message in IRRELEVANT_WARNINGS:
        warnings.filterwarnings("ignore", message=message)

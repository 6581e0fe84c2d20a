"""Silence Lightning warnings that do not apply here."""

import logging
import warnings

IRRELEVANT_WARNINGS = (
    ".*does not have many workers.*",  # data are in memory: worker processes only add cost
    ".*`tensorboardX` has been removed.*",  # metrics go to MLflow
    ".*You are using a CUDA device .* that has Tensor Cores.*",
    ".*available but not used.*",  # the configuration chooses the accelerator
    ".*exists and is not empty.*",  # the run's own folder
    ".*litlogger.*",
    ".*smaller than the logging interval.*",  # nothing is logged per step
    ".*callbacks used to create the checkpoint need to be provided.*",  # an evaluation saves no checkpoints
    ".*your dataloader is not resumable.*",  # its position is restored; see checkpoints/position.py
    ".*isinstance.treespec, LeafSpec.* is deprecated.*",  # between Lightning 2.6 and torch 2.15
)


def silence_lightning() -> None:
    """Hide Lightning's info messages and `IRRELEVANT_WARNINGS`; other warnings and errors are still shown."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in IRRELEVANT_WARNINGS:
        warnings.filterwarnings("ignore", message=message)

"""Silences what Lightning says to everybody and nobody here needs; its other warnings stay."""

import logging
import warnings

IRRELEVANT_WARNINGS = (
    ".*does not have many workers.*",  # in memory, a worker process only costs
    ".*`tensorboardX` has been removed.*",  # runs go to MLflow
    ".*You are using a CUDA device .* that has Tensor Cores.*",
    ".*available but not used.*",  # accelerators: the configuration says which
    ".*exists and is not empty.*",  # the run's own folder
    ".*litlogger.*",
    ".*smaller than the logging interval.*",  # nothing is logged per step
    ".*callbacks used to create the checkpoint need to be provided.*",  # an evaluation saves no checkpoints
    ".*isinstance.treespec, LeafSpec.* is deprecated.*",  # between Lightning 2.6 and torch 2.15
)


def silence_lightning() -> None:
    """Keep warnings and errors of Lightning, drop its greetings."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in IRRELEVANT_WARNINGS:
        warnings.filterwarnings("ignore", message=message)

"""Silence messages of Lightning that do not apply here; the others are shown.

tests/pipelines/runtime/test_silence.py shows for each why it does not apply.
"""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IRRELEVANT_WARNINGS = (
    ".*available but not used.*",  # the configuration chooses the accelerator
    ".*your dataloader is not resumable.*",  # its position is restored; see checkpoints/position.py
    ".*smaller than the logging interval.*",  # training/logging_interval.py says it if it matters
    ".*isinstance.treespec, LeafSpec.* is deprecated.*",  # between Lightning 2.6 and torch 2.15
)
_FEW_WORKERS = ".*does not have many workers.*"
_MISSING_CALLBACKS = ".*callbacks used to create the checkpoint need to be provided.*"
_NOT_SYNCED = ".*recommended to use .self.log.*sync_dist=True.*"
_NOT_EMPTY = "Checkpoint directory {}.*exists and is not empty"
_RELEVANT_INFO = re.compile(
    r"Ignoring `Trainer\(max_time|will override existing callbacks|No training batches|signaled to stop|detect_anomaly"
)
"""Info messages of the Trainer that tell what became of something that the user gave."""


@contextmanager
def hidden_warnings(
    *, in_memory: bool, evaluates: bool = False, shared: bool = False, folder: Path | None = None
) -> Iterator[None]:
    """Hide warnings of Lightning that do not apply to a training or an evaluation.

    Args:
        in_memory: Whether the data are in memory, where worker processes only add cost.
        evaluates: Whether a checkpoint is evaluated, which does not need the state of the callbacks.
        shared: Whether several processes measure, whose metrics are added up before they are logged.
        folder: The run's own folder, which has files of the run before a resume.
    """
    hidden = {
        _FEW_WORKERS: in_memory,
        _MISSING_CALLBACKS: evaluates,
        _NOT_SYNCED: shared,
        _NOT_EMPTY.format(re.escape(str(folder))): folder is not None,
    }
    with warnings.catch_warnings():
        for message, is_hidden in hidden.items():
            if is_hidden:
                warnings.filterwarnings("ignore", message=message)
        yield


def silence_lightning() -> None:
    """Hide Lightning's info messages and `IRRELEVANT_WARNINGS`; other warnings and errors are still shown.

    Messages of callbacks and profilers, which only run if the user asked for them, are shown too, and those of the
    Trainer that tell what became of something that the user gave.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("callbacks", "profilers", "tuner"):
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.INFO)
    trainer = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    trainer.setLevel(logging.INFO)
    trainer.addFilter(_is_relevant)  # a second time, it is not added again
    for message in IRRELEVANT_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


def _is_relevant(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or bool(_RELEVANT_INFO.search(record.getMessage()))

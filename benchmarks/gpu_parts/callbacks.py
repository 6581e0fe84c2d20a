"""Callbacks of the benchmark's trainings."""

import os
import signal
import time
from pathlib import Path
from typing import final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

MARKER = "LITLAB_KILLED"
KILLED_EPOCH = 2


@final
class KillOnce(Callback):
    """Kill the process in the middle of an epoch, unless the file named in the environment exists; create it."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        marker = Path(os.environ[MARKER])
        if trainer.current_epoch == KILLED_EPOCH and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@final
class EpochStarts(Callback):
    """Record when each epoch starts, and when the last one has ended, in `MOMENTS`; the seconds of steps in `STEPS`."""

    once_per_block = True

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        MOMENTS.append(time.perf_counter())

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if trainer.is_last_batch:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            STEPS.append(time.perf_counter() - MOMENTS[-1])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        MOMENTS.append(time.perf_counter())


MOMENTS: list[float] = []
STEPS: list[float] = []
"""In seconds, of the trainings of this process."""

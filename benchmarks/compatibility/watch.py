"""A callback for both programs: it saves the final weights, records the processes, and kills the training.

It reads the environment, so that the configuration is the same whether a training is killed or not:
COMPATIBILITY_FOLDER receives the files; COMPATIBILITY_KILL is "EPOCH BATCH", after which the process kills itself.
"""

import os
import signal
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

WEIGHTS = "weights.pt"


class Watching:
    """The hooks, for the callbacks of any package."""

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        (_folder() / f"rank-{trainer.global_rank}-of-{trainer.world_size}").touch()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if f"{trainer.current_epoch} {batch_idx}" == os.environ.get("COMPATIBILITY_KILL"):
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            torch.save(pl_module.state_dict(), _folder() / WEIGHTS)


class Watch(Watching, Callback):
    """The callback for lightning."""


def _folder() -> Path:
    return Path(os.environ["COMPATIBILITY_FOLDER"])

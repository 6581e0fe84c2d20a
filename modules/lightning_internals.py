"""The parts of Lightning that modules use although they are not documented, tried with 2.6.6.

A later version may change them: tests/pipelines/runtime/test_internals.py fails then, and names the part.

- `Closure.closure` and `ClosureResult`: a step that was run without the closure that Lightning made for it.
- `ModelCheckpoint._every_n_train_steps` and `_train_time_interval`: whether it saves within epochs.
"""

from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loops.optimization.automatic import ClosureResult
from torch import Tensor

HOOK_NAME = "_current_fx_name"  # attribute of a module that Lightning sets about 40 times per step


def set_closure_loss(closure: Any, loss: Tensor) -> None:
    """Let the closure of a step return a loss without running it."""
    closure.closure = lambda: ClosureResult(loss)
    closure()
    del closure.closure  # restores the method of the class


def saves_within_epochs(callback: ModelCheckpoint) -> bool:
    """Return whether a checkpoint callback saves after some steps, or after some time."""
    return bool(callback._every_n_train_steps) or callback._train_time_interval is not None

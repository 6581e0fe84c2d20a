"""The parts of Lightning that modules use although they are not documented, tried with 2.6.6.

A later version may change them: tests/pipelines/runtime/test_internals.py fails then, and names the part.

- `Closure.closure` and `ClosureResult`: a step that was run without the closure that Lightning made for it.
"""

from typing import Any

from lightning.pytorch.loops.optimization.automatic import ClosureResult
from torch import Tensor

HOOK_NAME = "_current_fx_name"  # attribute of a module that Lightning sets about 40 times per step


def set_closure_loss(closure: Any, loss: Tensor) -> None:
    """Let the closure of a step return a loss without running it."""
    closure.closure = lambda: ClosureResult(loss)
    closure()
    del closure.closure  # restores the method of the class

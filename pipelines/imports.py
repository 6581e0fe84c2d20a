"""Importing large libraries: Python's garbage collector would look through all of them again and again."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected(module: str) -> Iterator[None]:
    """While this module is imported, for the first time, nothing is collected; what there is by then, only at the end.

    It saves a sixth of what torch, Lightning and MLflow take (benchmarks/startup.py).
    """
    if module in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # some libraries call what is left then a leak

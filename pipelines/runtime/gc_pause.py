"""Pause Python's garbage collector while many long-lived objects are created."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause garbage collection. With many small objects that survive, scanning them takes longer than creating them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def gc_paused_for_import(module: str) -> Iterator[None]:
    """Pause garbage collection during the first import of a module, and exempt all objects from it until exit.

    Saves a sixth of the import time of torch, Lightning and MLflow (benchmarks/startup.py).

    Args:
        module: Full name of the module. If it is already imported, nothing is paused.
    """
    if module in sys.modules or not gc.isenabled():
        yield
        return
    with gc_paused():
        try:
            yield
        finally:
            gc.freeze()
            atexit.register(gc.unfreeze)  # some libraries report frozen objects as leaks

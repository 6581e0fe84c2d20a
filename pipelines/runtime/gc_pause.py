"""Python's garbage collector, kept from looking again and again through what stays."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """Do not look for garbage meanwhile: many small objects that stay are made, and looking takes longer than that."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def gc_paused_for_import(module: str) -> Iterator[None]:
    """While this module is imported, for the first time, nothing is collected; what there is by then, only at the end.

    It saves a sixth of what torch, Lightning and MLflow take (benchmarks/startup.py).
    """
    if module in sys.modules or not gc.isenabled():
        yield
        return
    with gc_paused():
        try:
            yield
        finally:
            gc.freeze()
            atexit.register(gc.unfreeze)  # some libraries call what is left then a leak

"""Ctrl-C, as Python says it."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch import Trainer


@contextmanager
def heard(trainer: Trainer) -> Iterator[None]:
    """Turn the `SystemExit(1)` that Lightning makes of a Ctrl-C back into KeyboardInterrupt.

    Raises:
        KeyboardInterrupt: Somebody pressed Ctrl-C while the trainer was at work.
    """
    try:
        yield
    except SystemExit as stop:
        if trainer.interrupted and stop.code == 1:
            raise KeyboardInterrupt from stop
        raise

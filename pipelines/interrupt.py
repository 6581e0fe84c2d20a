"""Ctrl-C and SIGTERM, as Python says them."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


@contextmanager
def heard(trainer: "Trainer") -> Iterator[None]:
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


def exit_on_sigterm() -> None:
    """Make SIGTERM a SystemExit with code 143, so that what is under way can be ended properly."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

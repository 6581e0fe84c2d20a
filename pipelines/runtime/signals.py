"""Ctrl-C and SIGTERM, as Python says them."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

Handler = Callable[[int, FrameType | None], object] | signal.Handlers


@contextmanager
def reraise_keyboard_interrupt(trainer: "Trainer") -> Iterator[None]:
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


@contextmanager
def signal_handlers(handler: Handler, *numbers: int) -> Iterator[None]:
    """Have signals handled so for a while; only in the main thread."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def exit_on_sigterm() -> None:
    """Make SIGTERM a SystemExit with code 143, so that what is under way can be ended properly."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

"""Signal handling: Ctrl-C stays KeyboardInterrupt, SIGTERM exits with code 143."""

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
    """Turn the SystemExit(1) that Lightning raises on Ctrl-C back into KeyboardInterrupt.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed while the trainer was running.
    """
    try:
        yield
    except SystemExit as stop:
        if trainer.interrupted and stop.code == 1:
            raise KeyboardInterrupt from stop
        raise


@contextmanager
def signal_handlers(handler: Handler, *signals: int) -> Iterator[None]:
    """Install `handler` for the given signals and restore the previous handlers on exit. Main thread only."""
    previous = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, former in previous.items():
            signal.signal(number, former)


def exit_on_sigterm() -> None:
    """Raise SystemExit(143) on SIGTERM so that `finally` blocks and context managers run. Main thread only."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

"""Ctrl-C and SIGTERM, as Python says them."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
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


def exit_on_sigterm() -> None:
    """Make SIGTERM a SystemExit with code 143, so that what is under way can be ended properly."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def hearing(work: Callable[[], object]) -> None:
    """Do long work of a library that does not look for signals, ready to hear them; they leave the work behind.

    Raises:
        KeyboardInterrupt: Somebody pressed Ctrl-C.
        SystemExit: SIGTERM came, after `exit_on_sigterm`.
    """
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
    if errors:
        raise errors[0]

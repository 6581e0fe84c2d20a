"""Signal handling: Ctrl-C stays KeyboardInterrupt, SIGTERM exits with code 143."""

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

AGREE_EVERY_N_STEPS = 10
"""Steps between two exchanges of whether to stop, in a training with several processes."""
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
    """Install `handler` for the given signals and restore the previous handlers on exit.

    Does nothing in another thread than the main one, which receives no signals.
    """
    with restored_signals(*signals):
        if _in_main_thread():
            for number in signals:
                signal.signal(number, handler)
        yield


@contextmanager
def restored_signals(*signals: int) -> Iterator[None]:
    """Restore the handlers of the given signals on exit, whatever the block sets. Main thread only, like handlers."""
    previous = {number: signal.getsignal(number) for number in signals} if _in_main_thread() else {}
    try:
        yield
    finally:
        for number, former in previous.items():
            signal.signal(number, signal.SIG_DFL if former is None else former)


def ignored_signals() -> AbstractContextManager[None]:
    """Ignore Ctrl-C and SIGTERM in the block."""
    return signal_handlers(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def stop_main_thread() -> None:
    """Stop the main thread of this process from another one, as gently as a signal can.

    If a handler is set for SIGINT, as in a sweep, it is called. Otherwise the handler of SIGTERM is called, with which
    a training saves a checkpoint. If neither is set, KeyboardInterrupt is raised.
    """
    interrupt, terminate = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    has_own = callable(interrupt) and interrupt is not signal.default_int_handler
    number = signal.SIGTERM if callable(terminate) and not has_own else signal.SIGINT
    main_thread = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main_thread is not None:
        signal.pthread_kill(main_thread, number)
    else:  # on Windows
        _thread.interrupt_main(number)


def exit_on_sigterm() -> None:
    """Raise SystemExit(143) on SIGTERM so that `finally` blocks and context managers run. Main thread only."""
    if _in_main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


class StopRequest:
    """SIGTERM and SIGUSR1 ask for the end of a training after the next step; a second signal ends it at once."""

    def __init__(self) -> None:
        self._signal = 0

    def listen(self) -> None:
        """Take the signals, until Lightning's trainer restores its own handlers at the end of the training."""
        if _in_main_thread():
            for name in ("SIGTERM", "SIGUSR1"):
                if hasattr(signal, name):  # not on Windows
                    signal.signal(getattr(signal, name), self._request)

    @property
    def requested(self) -> bool:
        """Whether this process has received a signal."""
        return self._signal != 0

    def agreed(self, trainer: "Trainer", *, now: bool = False) -> bool:
        """Return whether to stop, in all processes alike.

        Args:
            trainer: Of this process.
            now: Whether to ask the other processes whatever the step is.
        """
        if trainer.world_size == 1:
            return self.requested
        if not now and trainer.global_step % AGREE_EVERY_N_STEPS:
            return False
        return trainer.strategy.reduce_boolean_decision(self.requested, all=False)

    def exit(self) -> None:
        """Raise SystemExit with the code of the signal."""
        sys.exit(128 + (self._signal or signal.SIGTERM))

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self._signal:
            sys.exit(128 + number)
        self._signal = number

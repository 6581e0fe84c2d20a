"""Call a room from a script or a notebook without leaving changes in its process."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from pipelines.cli import limit_thread_spinning
from pipelines.runtime.signals import restored_signals
from pipelines.runtime.status import clear_status

_SET_BY_TRAININGS = ("SIGINT", "SIGTERM", "SIGUSR1")


@contextmanager
def training_call(arguments: Sequence[str] = ()) -> Iterator[None]:
    """Train in the block, after which the handlers of signals are as before.

    Args:
        arguments: Those of a new run, whose writer starts before torch is imported; none without a new run.
    """
    from pipelines.tracking import source_code, writer_process

    limit_thread_spinning()
    with ExitStack() as stack:
        numbers = [getattr(signal, name) for name in _SET_BY_TRAININGS if name in signal.Signals.__members__]
        stack.enter_context(restored_signals(*numbers))
        stack.callback(clear_status)
        if arguments:
            writer_process.start(arguments)
            source_code.start()
            stack.callback(writer_process.stop)
            stack.callback(source_code.stop)
        yield

"""Messages that a worker process sends to its controller."""

import contextlib
import traceback
from multiprocessing import connection
from typing import Any

from pipelines.runtime.errors import StoppedError, UserError


class RefusedError(UserError):
    """An error that would end every other trial in the same way."""


def send(pipe: connection.Connection, message: tuple[Any, ...]) -> None:
    """Send a message to the controller, if it is still alive."""
    with contextlib.suppress(OSError):
        pipe.send(message)


def final_message(error: BaseException) -> tuple[str, str]:
    """Return the last message of a training that raised: "pruned", "refused", "stopped" or "failed", and the reason."""
    if isinstance(error, StoppedError):
        return "pruned", str(error)
    if isinstance(error, RefusedError):
        return "refused", str(error)
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "stopped", describe_error(error)
    if not isinstance(error, UserError | FloatingPointError):
        traceback.print_exception(error)
    return "failed", describe_error(error)


def describe_error(error: BaseException) -> str:
    """Return the first line of an error's message, with the type of an unexpected error."""
    lines = str(error).strip().splitlines()
    if isinstance(error, UserError | FloatingPointError):
        return lines[0] if lines else type(error).__name__
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__

"""A status line on a terminal: what a command does while it prints nothing else. Imports nothing heavy."""

import os
import shutil
import sys
from collections.abc import Iterable
from typing import Any, TextIO

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # environment variables of processes that train together
_SHOWN = [""]  # the line that is on the terminal
_KEPT: list[Any] = []  # streams that a `print` may still use when it has removed them: without them, it would crash


class _Clearing:
    """A stream that removes the status line before anything else is written."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        clear_status()
        return self.stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        clear_status()
        self.stream.writelines(lines)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def show_status(text: str) -> None:
    """Show a line on stderr until anything else is printed. Nothing without a terminal, or on further devices.

    Args:
        text: What the command does, such as "saving the model"; it is followed by three dots.
    """
    clear_status()
    is_first = all(os.environ.get(name, "0") == "0" for name in _RANKS)
    if not (is_first and sys.stderr is not None and sys.stderr.isatty()):
        return
    _SHOWN[0] = f"{text} ..."[: shutil.get_terminal_size().columns - 1]
    sys.stderr.write(_SHOWN[0])
    sys.stderr.flush()
    sys.stdout, sys.stderr = streams = _Clearing(sys.stdout), _Clearing(sys.stderr)
    _KEPT.extend(streams)


def clear_status() -> None:
    """Remove the status line, if there is one."""
    for name in ("stdout", "stderr"):
        if isinstance(stream := getattr(sys, name), _Clearing):
            setattr(sys, name, stream.stream)
    if _SHOWN[0]:
        sys.stderr.write(f"\r{' ' * len(_SHOWN[0])}\r")
        sys.stderr.flush()
        _SHOWN[0] = ""

"""A status line on a terminal: what a command does while it prints nothing else. Imports nothing heavy."""

import os
import shutil

from pipelines.runtime.streams import Watcher, bare_stream, unwatch, watch

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # environment variables of processes that train together
_SHOWN = [""]  # the line that is on the terminal


def show_status(text: str) -> None:
    """Show a line on stderr until anything else is printed. Nothing without a terminal, or on further devices.

    Args:
        text: What the command does, such as "saving the model"; it is followed by three dots.
    """
    clear_status()
    is_first = all(os.environ.get(name, "0") == "0" for name in _RANKS)
    stream = bare_stream("stderr")
    if not (is_first and stream is not None and stream.isatty()):
        return
    _SHOWN[0] = f"{text} ..."[: shutil.get_terminal_size().columns - 1]
    stream.write(_SHOWN[0])
    stream.flush()
    watch(_CLEARING)


def clear_status() -> None:
    """Remove the status line, if there is one."""
    unwatch(_CLEARING)
    if _SHOWN[0]:
        stream = bare_stream("stderr")
        stream.write(f"\r{' ' * len(_SHOWN[0])}\r")
        stream.flush()
        _SHOWN[0] = ""


_CLEARING = Watcher(before=clear_status)

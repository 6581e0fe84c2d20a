"""The parts of multiprocessing that litlab uses although they are not documented, tried with Python 3.11 to 3.13.

A later version may change them: tests/pipelines/runtime/test_internals.py fails then, and names the part.

- `multiprocessing.forkserver.ensure_running`: starts the fork server early. The first worker would start it too,
  and wait for its imports.
- `sys.modules["__main__"]`: a new process imports what is there when it is started, before its own work.
- `multiprocessing.util.get_temp_dir`: creates the folder of the sockets. Later versions choose a short path themselves.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import util
from types import ModuleType

from pipelines.runtime.errors import UserError

SOCKET, MAX_SOCKET_PATH = "/pymp-12345678/listener-12345678", 103  # bytes: macOS; Linux takes four more


def start_fork_server() -> None:
    """Start the fork server of this process, unless it is running.

    Raises:
        UserError: There is no folder whose path is short enough for its socket.
    """
    from multiprocessing import forkserver  # Windows has none

    _shorten_socket_paths()
    forkserver.ensure_running()


@contextmanager
def main_not_imported() -> Iterator[None]:
    """Have a process that is started in the block not import `__main__`, which it does not need.

    The script of a user who calls `litlab.sweep` would start the sweep again there, unless it guards the call.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _shorten_socket_paths() -> None:
    """Have multiprocessing keep its sockets in /tmp if their paths would be too long in the temporary folder.

    Schedulers make such a folder for each job.
    """
    if len(os.fsencode(tempfile.gettempdir())) + len(SOCKET) <= MAX_SOCKET_PATH:
        return
    original, tempfile.tempdir = tempfile.tempdir, "/tmp"  # noqa: S108 -- for a folder that mkdtemp keeps private
    try:
        util.get_temp_dir()  # created once, and removed at exit
    except OSError as error:
        raise UserError(
            f"the path of the temporary folder, {original}, is too long for sockets, and /tmp cannot be used "
            f"({error.strerror}): set TMPDIR to a shorter path"
        ) from error
    finally:
        tempfile.tempdir = original

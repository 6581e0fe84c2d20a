"""Run a command of the user when a run has ended, such as one that sends a message."""

import os
import subprocess
import tempfile
from collections.abc import Mapping

from pipelines.runtime.log import logger
from pipelines.runtime.process import SIGKILL, signal_process_group

LIMIT_S = 30.0  # after which the command is killed


def notify(command: str, facts: Mapping[str, str]) -> None:
    """Run a command in a shell, with facts in its environment. If it fails or takes too long, log one warning.

    Args:
        command: The command. It is not logged: it may have a secret in it.
        facts: Values by the name of their environment variable.
    """
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(  # noqa: S602  # the user's own command line
                command,
                shell=True,
                env={**os.environ, **facts},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=output,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            logger.warning("--notify: the command cannot be started: %s", error)
            return
        try:
            code = process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            logger.warning("--notify: the command took more than %g s and was killed", LIMIT_S)
            return
        finally:
            if process.returncode is None:
                signal_process_group(process.pid, SIGKILL)
                process.wait()
        if code:
            output.seek(0)
            lines = output.read().decode(errors="replace").strip().splitlines()
            logger.warning("--notify: the command ended with exit code %d%s", code, f": {lines[-1]}" if lines else "")

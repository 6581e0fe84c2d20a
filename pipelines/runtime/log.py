"""Messages to the user beside a command's result: `logger.warning("...")` prints `litlab: ...` to stderr."""

import logging
import sys
from typing import TextIO

from pipelines.runtime.text import escape_control_characters

logger = logging.getLogger("litlab")


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Write to what sys.stderr is at that moment, one prefixed message a line."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        return f"litlab: {escape_control_characters(record.getMessage())}"


def configure_logging() -> None:
    """Print litlab's messages from INFO on. Called once by each process that a command runs in."""
    if not logger.handlers:
        logger.addHandler(_StderrHandler())
        logger.setLevel(logging.INFO)
        logger.propagate = False

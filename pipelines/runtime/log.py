"""Messages to the user: `logger.warning("...")` prints `litlab: ...` to stderr. Results go to stdout instead."""

import logging
import sys
from typing import TextIO

from pipelines.runtime.text import escape_control_characters

logger = logging.getLogger("litlab")


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Write each message with a prefix to the current sys.stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        return f"litlab: {escape_control_characters(record.getMessage())}"


def configure_logging() -> None:
    """Print messages of level INFO and above. Every process that runs a command calls this once."""
    if not logger.handlers:
        logger.addHandler(_StderrHandler())
        logger.setLevel(logging.INFO)
        logger.propagate = False

"""Optuna's warnings as messages of litlab, each once: that a sampler cannot search a kind of key, for example."""

import logging
import re
import warnings

from pipelines.runtime.log import logger

_TRIAL = re.compile(r" in Trial#\d+")


class _OnceHandler(logging.Handler):
    """Print each message of Optuna once, for whichever trial it is."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = _TRIAL.sub("", record.getMessage())
        if text not in self._printed:
            self._printed.add(text)
            logger.log(record.levelno, "Optuna: %s", text)


def show_warnings() -> None:
    """Show Optuna's warnings, except that a part of it is experimental: litlab tests the parts that it uses."""
    import optuna

    optuna.logging.disable_default_handler()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    source = logging.getLogger("optuna")
    if not any(isinstance(handler, _OnceHandler) for handler in source.handlers):
        source.addHandler(_OnceHandler())
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

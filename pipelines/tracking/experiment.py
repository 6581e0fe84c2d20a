"""MLflow's client for the code of users, `self.logger.experiment`: a request that fails is a warning."""

import functools
import os
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

from pipelines.runtime.log import logger
from pipelines.runtime.text import first_line, redact_credentials
from pipelines.tracking.client import import_client

MISTAKES = (TypeError, ValueError, AttributeError, LookupError, ImportError, NameError, AssertionError)  # in the call
FAST_S = 1.0  # a request that fails in less time delays nothing
PAUSE = 10  # times the duration of a slow request that failed: calls are left out, so that a dead server delays little


class ExperimentClient:
    """MlflowClient, imported and made when one of its attributes is first used: Lightning itself touches the object.

    A method that fails warns, each message once, and returns None; a mistake in the call raises its exception.

    Args:
        uri: The tracking store, of which MLflow's own functions, such as `mlflow.pytorch.log_model`, then make use too.
    """

    def __init__(self, uri: str) -> None:
        self._uri, self._silent_until = uri, 0.0
        self._warned: set[str] = set()

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """MlflowClient, for isinstance."""
        return type(self._client)

    def __getattr__(self, name: str) -> Any:
        try:
            value = getattr(self._client, name)
        except AttributeError as error:
            hint = ", as TensorBoard has: add --trainer.logger TensorBoardLogger" if name.startswith("add_") else ""
            raise AttributeError(f"MLflow's client, self.logger.experiment, has no {name}{hint}") from error
        return functools.partial(self._request, name, value) if callable(value) else value

    @cached_property
    def _client(self) -> Any:
        kind = import_client(self._uri)
        import mlflow

        before = os.environ.get("MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(self._uri)
        if before is None:  # it sets the variable too, which would decide where later runs are stored
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        else:
            os.environ["MLFLOW_TRACKING_URI"] = before
        return kind(self._uri)

    def _request(self, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        began = time.monotonic()
        if began < self._silent_until:
            return None
        try:
            return method(*args, **kwargs)
        except Exception as error:
            if isinstance(error, MISTAKES) and not isinstance(error, OSError):
                raise
            message = f"logger.experiment.{name} to {redact_credentials(self._uri)} failed: {first_line(error)[:300]}"
            if message not in self._warned:
                logger.warning(message)
            self._warned.add(message)
            duration = time.monotonic() - began
            self._silent_until = time.monotonic() + (PAUSE * duration if duration > FAST_S else 0.0)
            return None

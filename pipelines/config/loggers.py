"""The loggers of a configuration, `trainer.logger`: an MLFlowLogger gives its settings to litlab's; others are kept."""

import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.tags import NAME_TAG
from pipelines.tracking.uri import store_uri

KEY = "trainer.logger"
_CLASS = "MLFlowLogger"
_TAKEN = ("experiment_name", "run_name", "tags", "tracking_uri")


@dataclass(frozen=True)
class MlflowSettings:
    """What an MLFlowLogger of a configuration says about the run.

    Attributes:
        run_name: Name of the run; "" if it gives none.
        tags: Tags of the run.
        note: What became of the logger, for the user; "" without one.
    """

    run_name: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


def take_mlflow_settings(config: Namespace, default_name: str) -> MlflowSettings:
    """Apply the settings of an MLFlowLogger to a configuration: `name` and `tracking_uri`, unless these are given.

    Args:
        config: The parsed configuration. The logger's tracking URI, which may have a password, is moved.
        default_name: The name of the experiment if none is given.
    """
    entry = next(filter(_is_mlflow, _entries(config)), None)
    if entry is None:
        return MlflowSettings()
    arguments = entry.get("init_args") or Namespace()  # type: ignore[no-untyped-call]
    defaults = {name: item.default for name, item in inspect.signature(MLFlowLogger).parameters.items()}
    given = {name: value for name, value in vars(arguments).items() if value not in (None, defaults.get(name))}
    uri = given.get("tracking_uri")
    if "tracking_uri" in arguments:
        arguments.tracking_uri = None
    if config.tracking_uri is not None or uri in (None, os.environ.get("MLFLOW_TRACKING_URI")) or not _is_store(uri):
        given.pop("tracking_uri", None)
    else:
        config.tracking_uri = uri
    if config.name != default_name:
        given.pop("experiment_name", None)
    config.name = given.get("experiment_name", config.name)
    tags = {str(key): str(value) for key, value in (given.get("tags") or {}).items()}
    tagged = tags.pop(NAME_TAG, "")
    return MlflowSettings(given.get("run_name") or tagged, tags, _note(given, uri))


def _note(given: Mapping[str, Any], uri: str | None) -> str:
    kept = [name for name in _TAKEN if name in given]
    lost = [name for name in given if name not in kept]
    lost += [f"tracking_uri {redact_credentials(uri)}"] if uri and "tracking_uri" not in kept else []
    with_its = f" with its {', '.join(kept)}" if kept else ""
    ignored = f"; {', '.join(lost)} is ignored" if lost else ""
    return f"{KEY}: litlab logs to MLflow itself{with_its}, instead of an MLFlowLogger{ignored}"


def build_loggers(config: Namespace) -> list[Logger | None]:
    """Build the loggers of a configuration; None stands for the first MLFlowLogger, further ones are left out.

    Raises:
        UserError: A logger cannot be built, for example because its package is not installed.
    """
    built: list[Logger | None] = []
    for entry in _entries(config):
        if not _is_mlflow(entry):
            built.append(_build(entry))
        elif None not in built:
            built.append(None)
    return built


def place_logger(own: Logger, built: Sequence[Logger | None], default: Sequence[Logger] = ()) -> list[Logger]:
    """Return the loggers of a configuration with litlab's own among them.

    `self.logger` of a module is the first of its loggers: that of the user, as in Lightning. litlab's is where the
    MLFlowLogger is; without one it is the last, but before CSVLoggers, of whose `experiment` a module makes no use.

    Args:
        own: litlab's logger.
        built: The loggers of the configuration, from `build_loggers`.
        default: What `trainer.logger: true` stands for.
    """
    if None in built:
        return [*default, *(own if logger is None else logger for logger in built)]
    loggers = [*default, *(logger for logger in built if logger is not None)]
    return [own, *loggers] if all(isinstance(logger, CSVLogger) for logger in loggers) else [*loggers, own]


def _entries(config: Namespace) -> list[Any]:
    """Return the loggers of a configuration, without true and false."""
    value = config.trainer.logger
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, Iterable) and not isinstance(value, Namespace) else [value]


def _is_mlflow(entry: Any) -> bool:
    return str(entry.get("class_path", "")).rpartition(".")[2] == _CLASS


def _is_store(uri: str) -> bool:
    try:
        store_uri(uri)
    except UserError:  # a folder, such as file:./mlruns
        return False
    return True


def _build(entry: Namespace) -> Logger:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--logger", type=Logger)
    try:
        built: Logger = parser.instantiate_classes(Namespace(logger=entry)).logger  # type: ignore[no-untyped-call]
    except (ImportError, ValueError, TypeError, OSError) as error:
        raise UserError(f"{KEY}: {entry.class_path}: {error}") from error
    return built

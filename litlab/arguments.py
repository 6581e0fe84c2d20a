"""Turn arguments of Python into those of the command, so that a run is the same whichever started it."""

import json
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.tracking.labels import Labels

Overrides = Mapping[str, Any]
Values = Mapping[str, Any]  # by name
Duration = float | str  # seconds, or text such as "2h"
Files = str | Path | Sequence[str | Path]
_ASKING = ("config", "help", "print_config", "full-help")  # options of the command that are no keys


def key_arguments(overrides: Overrides | None) -> list[str]:
    """Return keys and values as on the command line: `--model.dropout 0.3`.

    Raises:
        UserError: A key or the type of a value is refused.
    """
    return [word for key, value in (overrides or {}).items() for word in _option(key, _text(key, value))]


def experiment_arguments(
    config: Files, overrides: Overrides | None, *, seed: int | None, name: str | None
) -> list[str]:
    """Return what follows the experiment: files, keys, seed, and name of the MLflow experiment."""
    files = [config] if isinstance(config, str | Path) else config
    arguments = [word for file in files for word in ("-c", str(file))] + key_arguments(overrides)
    return [*arguments, *key_arguments(given(seed_everything=seed, name=name))]


def labels(tags: Mapping[str, Any] | None, note: str | None, run_name: str | None) -> Labels:
    """Return the labels of a run.

    Raises:
        UserError: A tag is one of litlab's or MLflow's own, or a text is too long.
    """
    return Labels.parse([f"{key}={value}" for key, value in (tags or {}).items()], note, run_name)


def given(**values: Any) -> dict[str, Any]:
    """Return the values that are not None."""
    return {key: value for key, value in values.items() if value is not None}


def _option(key: str, text: str) -> list[str]:
    if key in _ASKING or key.endswith(".help"):
        hint = "config=FILE takes files" if key == "config" else f"litlab fit NAME --{key} prints it"
        raise UserError(f"overrides: {key!r} is no key of a configuration; {hint}")
    return [f"--{key}={text}"] if text.startswith("-") else [f"--{key}", text]


def _text(key: str, value: Any) -> str:
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    try:
        return json.dumps(value, default=_plain)
    except TypeError as error:
        raise UserError(f"overrides: {key} is {type(value).__name__}, which a configuration cannot have") from error


def _plain(value: Any) -> Any:
    """Return a number of NumPy or a path in a type that JSON has."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"{type(value).__name__} is not plain")

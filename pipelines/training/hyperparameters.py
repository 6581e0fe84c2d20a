"""Hyperparameters that a user's code logs: which of them are new params of a run, and how they are written."""

import json
from collections.abc import Mapping
from typing import Any

from pipelines.runtime.text import param_text
from pipelines.tracking.run import accepted_name

MAX_TEXT = 250  # characters of an object that is logged as text, as in MLFlowLogger


def new_params(hyperparameters: Mapping[str, Any], params: Mapping[str, str]) -> dict[str, Any]:
    """Return the hyperparameters to log: with a value, and unequal to the key of the configuration that they repeat.

    A module's `lr` repeats the key `model.lr`: beside it, it would tell runs apart that are repeats of one another.

    Args:
        hyperparameters: Names and values; nested ones become `optimizer/lr`, as in MLFlowLogger.
        params: The params of the run, by the keys of its configuration.
    """
    flat = {key: _plain(value) for key, value in _flatten(hyperparameters).items() if value is not None}
    return {accepted_name(key): value for key, value in flat.items() if not _repeats(key, value, params)}


def _flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= (
            _flatten(value, f"{prefix}{key}/") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
        )
    return flat


def _plain(value: Any) -> Any:
    """Return a value as JSON can have it, or else as text."""
    value = value.tolist() if hasattr(value, "tolist") else value  # of NumPy or torch
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return str(value)[:MAX_TEXT]


def _repeats(key: str, value: Any, params: Mapping[str, str]) -> bool:
    """Return whether a key of the configuration ends like this one, or without its section ends this one; and is equal.

    `hidden` and `net/hidden` both repeat `model.hidden`, but not `decoder/layers` the key `model.encoder.layers`.
    """
    path = "." + key.replace("/", ".")
    for known, text in params.items():
        inner = "." + known.partition(".")[2]
        if (f".{known}".endswith(path) or (inner != "." and path.endswith(inner))) and _equal(value, text):
            return True
    return False


def _equal(value: Any, text: str) -> bool:
    if text == param_text(value):
        return True
    try:
        return not isinstance(value, bool) and float(value) == float(text)
    except (TypeError, ValueError):
        return False

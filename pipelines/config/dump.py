"""Write a parsed configuration as plain YAML types."""

import warnings
from collections.abc import Iterator
from enum import Enum
from typing import Any

import numpy as np
import yaml
from jsonargparse import ArgumentParser, Namespace

_OBJECT = "Unable to serialize instance "  # what jsonargparse writes for it


def dump_config(parser: ArgumentParser, config: Namespace, **options: Any) -> Any:
    """Return a configuration as plain types. Defaults that are objects, such as `act=nn.ReLU()`, are left out.

    Args:
        parser: The parser of the configuration.
        config: Its values.
        **options: Of jsonargparse's `dump`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=rf"\s*{_OBJECT.strip()}")
        try:
            text = parser.dump(config, skip_none=False, **options)
        except ValueError:  # a default such as `Interval.step`, for an argument that is a string
            text = parser.dump(_with_plain_scalars(config), skip_none=False, **options)
    return _without_objects(yaml.safe_load(text), set(_strings(config)))


def _with_plain_scalars(value: Any) -> Any:
    """Return values with strings and numbers in place of members of enumerations and numpy's scalars."""
    if isinstance(value, Namespace):
        copied = value.clone()
        for key, item in vars(value).items():
            copied[key] = _with_plain_scalars(item)
        return copied
    if isinstance(value, list):
        return [_with_plain_scalars(item) for item in value]
    if isinstance(value, Enum):
        return value.value if isinstance(value, str | int) else value
    return value.item() if isinstance(value, np.generic) else value


def _without_objects(value: Any, strings: set[str]) -> Any:
    """Leave out what jsonargparse could not write; it also takes a string for an object where both are allowed."""
    if isinstance(value, dict):
        items = {key: _without_objects(item, strings) for key, item in value.items()}
        return {key: item for key, item in items.items() if not _is_object(item)}
    if isinstance(value, list):
        return [_without_objects(item, strings) for item in value]
    if _is_object(value) and value.removeprefix(_OBJECT) in strings:
        return value.removeprefix(_OBJECT)
    return value


def _is_object(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_is_object, value))
    return isinstance(value, str) and value.startswith(_OBJECT)


def _strings(value: Any) -> Iterator[str]:
    """Yield each string among the values of a configuration."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Namespace | dict | list):
        items = value if isinstance(value, list) else (vars(value) if isinstance(value, Namespace) else value).values()
        for item in items:
            yield from _strings(item)

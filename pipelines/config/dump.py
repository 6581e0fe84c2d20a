"""Write a parsed configuration as plain YAML types."""

import warnings
from collections.abc import Iterator
from enum import Enum
from typing import Any

import numpy as np
import yaml
from jsonargparse import ArgumentParser, Namespace, set_dumper

_OBJECT = "Unable to serialize instance "  # what jsonargparse writes for it


class _Dumper(yaml.SafeDumper):
    """Writes members of enumerations that are strings or numbers, and numpy's scalars, as what they stand for."""


def _represent_value(dumper: yaml.SafeDumper, member: Enum) -> yaml.Node:
    return dumper.represent_data(member.value)


def _represent_scalar(dumper: yaml.SafeDumper, scalar: np.generic) -> yaml.Node:
    return dumper.represent_data(scalar.item())


_Dumper.add_multi_representer(Enum, _represent_value)
_Dumper.add_multi_representer(np.generic, _represent_scalar)  # type: ignore[type-abstract]
set_dumper("yaml", lambda data: yaml.dump(data, Dumper=_Dumper, allow_unicode=True, sort_keys=False))


def dump_config(parser: ArgumentParser, config: Namespace, **options: Any) -> Any:
    """Return a configuration as plain types. Defaults that are objects, such as `act=nn.ReLU()`, are left out.

    Args:
        parser: The parser of the configuration.
        config: Its values.
        **options: Of jsonargparse's `dump`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=rf"\s*{_OBJECT.strip()}")
        text = parser.dump(config, skip_none=False, **options)
    return _without_objects(yaml.safe_load(text), set(_strings(config)))


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

"""Write a parsed configuration as plain YAML types."""

import warnings
from typing import Any

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
        return _without_objects(yaml.safe_load(parser.dump(config, skip_none=False, **options)))


def _without_objects(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_objects(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _without_objects(item) for key, item in value.items() if not _is_object(item)}


def _is_object(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_is_object, value))
    return isinstance(value, str) and value.startswith(_OBJECT)

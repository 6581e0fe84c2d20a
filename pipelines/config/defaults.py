"""Defaults of the keys of a configuration: of the command line, and of each class in it, as plain YAML types."""

import json
from collections.abc import Iterator, Mapping
from functools import cache, reduce
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from pipelines.config.class_parser import class_parser
from pipelines.config.cli import LitlabCLI
from pipelines.config.dump import dump_config
from pipelines.runtime.class_paths import with_old_class_paths

_NOT_CONFIG = ("config", "tracking_uri")  # keys of the command line that are not part of a run's configuration


def config_defaults(cli: LitlabCLI) -> dict[str, dict[str, Any]]:
    """Return the defaults that `identity.same_config` needs: of the command line as "", and of each class by its path.

    Only the classes of the configuration, and those that are defaults of these, are included.
    """
    own = {key: value for key, value in _plain(cli.parser).items() if key not in _NOT_CONFIG}
    defaults = {"": with_old_class_paths(own)}
    waiting = list(_find_class_paths([with_old_class_paths(cli.resolved()), defaults[""]]))
    while waiting:
        path = waiting.pop()
        if path not in defaults:
            defaults[path] = with_old_class_paths(class_defaults(path))
            waiting += _find_class_paths(list(defaults[path].values()))
    return defaults


@cache
def class_defaults(class_path: str) -> dict[str, Any]:
    """Return the defaults of the arguments of a class or function; dotted keys for those of a nested group.

    That of a required argument is None. There are none for what cannot be imported or has no signature.
    """
    try:
        return _plain(class_parser(class_path))
    except Exception:  # whatever a user's module raises when it is imported
        return {}


def _plain(parser: ArgumentParser) -> dict[str, Any]:
    """Return the defaults of a parser by dotted key, in the types that a resolved configuration has."""
    namespace = parser.get_defaults()
    defaults = {key: value.as_dict() if isinstance(value, Namespace) else value for key, value in _leaves(namespace)}
    if _is_plain(list(defaults.values())):
        plain: dict[str, Any] = json.loads(json.dumps(defaults))  # tuples become lists
        return plain
    dumped = dump_config(parser, namespace, skip_validation=True)  # takes much longer
    return {key: reduce(lambda group, part: (group or {}).get(part), key.split("."), dumped) for key in defaults}


def _leaves(namespace: Namespace, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value with its dotted key; a class with its arguments is one value."""
    for key, value in vars(namespace).items():
        if isinstance(value, Namespace) and "class_path" not in vars(value):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return type(value) in (str, int, float, bool, type(None))


def _find_class_paths(value: Any) -> Iterator[str]:
    """Yield each class path in a configuration."""
    if isinstance(value, Mapping):
        if isinstance(value.get("class_path"), str):
            yield value["class_path"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _find_class_paths(item)

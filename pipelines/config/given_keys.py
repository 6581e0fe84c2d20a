"""Keys that a user gave: each must have an effect. Another class may lack a key, and another list replaces a list."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from pipelines.config.arguments import CONFIG_FLAGS, split_options
from pipelines.config.experiments import SECTIONS, load_yaml, read_yaml
from pipelines.config.identity import prefixes
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger

_SUFFIXES = (".yaml", ".yml", ".json")  # of a file that has the value of a key
_LEFT_OUT = ("class_path", "init_args", "dict_kwargs")  # parts of a key that need not be written


@dataclass(frozen=True)
class _Given:
    """A key that was given.

    Attributes:
        key: Its dotted name, without `init_args`.
        value: Its value.
        source: Where it was given, for messages.
        appends: Whether the value is added to a list.
    """

    key: str
    value: Any
    source: str
    appends: bool = False


def check_keys(config: Namespace, args: Sequence[str], base: Path | None, *, announce: bool) -> None:
    """Check that each key of the command line and of its files has an effect.

    Keys of the file that the others change may be dropped with their class.

    Args:
        config: The parsed configuration.
        args: The arguments.
        base: The file that they change; by default the first one among them.
        announce: Whether to print which keys of this file are dropped.

    Raises:
        UserError: A key has no effect; the message names it, and the class that lacks it or what replaces it.
    """
    options = split_options(args)
    if base is None:
        first = next(option for option in options if option[0].partition("=")[0] in CONFIG_FLAGS)
        options.remove(first)
        base = Path(_text(first))
    _check_effect(config, options)
    for class_path, keys in _dropped_keys(config, base).items() if announce else ():
        logger.info("%s is used without %s, which %s does not have", base.name, ", ".join(keys), class_path)


def _check_effect(config: Namespace, options: Sequence[Sequence[str]]) -> None:
    values = dict(_paths(config.as_dict()))
    given = list(_given_keys(options))
    for index, item in enumerate(given):
        later = [other for other in given[index + 1 :] if not other.appends and item.key.startswith(f"{other.key}.")]
        if item.appends:
            later += [other for other in given[index + 1 :] if not other.appends and other.key == item.key]
        is_in_list = any(isinstance(values.get(start), list) for start in prefixes(item.key) if start != item.key)
        if item.appends or is_in_list:
            lost = bool(later)
        else:
            lost = item.key not in values or bool(later and _differs(item.value, values[item.key]))
        if lost:
            is_replaced = bool(later) and (item.key in values or isinstance(values.get(later[-1].key), list))
            why = f"{later[-1].source} replaces it" if is_replaced else _why_lost(item.key, values)
            raise UserError(f"{item.source} has no effect: {why}. Leave it out")


def _dropped_keys(config: Namespace, file: Path) -> dict[str, list[str]]:
    """Return the keys of the first file that a class chosen later lacks, by the class."""
    values, dropped = dict(_paths(config.as_dict())), dict[str, list[str]]()
    for key, _ in _file_keys(file):
        nearest = next((start for start in reversed(list(prefixes(key))) if start in values), "")
        if key not in values and (class_path := _class_path(values.get(nearest))):
            dropped.setdefault(class_path, []).append(key)
    return dropped


def _given_keys(options: Sequence[Sequence[str]]) -> Iterator[_Given]:
    """Yield the keys of the data module, the module and the trainer, in the order in which they take effect."""
    for option in options:
        flag, text = option[0].partition("=")[0], _text(option)
        if flag in CONFIG_FLAGS:
            for key, value in _file_keys(Path(text)):
                yield _Given(key, value, f"{text}: {key}")
            continue
        key = _plain_key(flag.removeprefix("--").removesuffix("+"))
        if key.partition(".")[0] not in SECTIONS:
            continue
        if Path(text).suffix in _SUFFIXES and Path(text).is_file():
            for name, value in _paths(read_yaml(Path(text), "the arguments of a class"), key):
                yield _Given(name, value, f"{text}: {name}")
        else:
            yield _Given(key, _value(text, flag), flag, appends=flag.endswith("+"))


def _file_keys(file: Path) -> list[tuple[str, Any]]:
    """Return the keys of a file with their values.

    Raises:
        UserError: A key stands twice in it, with and without `init_args`, or nested and with dots.
    """
    pairs = list(_paths(read_yaml(file)))
    count = Counter(key for key, value in pairs if not isinstance(value, Mapping))
    if repeated := [key for key in count if count[key] > 1]:
        raise UserError(f"{file}: {repeated[0]} is given twice")
    return pairs


def _text(option: Sequence[str]) -> str:
    """Return the value of an option."""
    _, joined, value = option[0].partition("=")
    return value if joined else option[-1]


def _paths(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name of each key within the sections, and its value."""
    if key:
        yield key, value
    if isinstance(value, Mapping):
        for name, item in value.items():
            path = _plain_key(f"{key}.{name}" if key else str(name))
            if path != key and path.partition(".")[0] in SECTIONS:
                yield from _paths(item, path)
            elif path == key and isinstance(item, Mapping):
                yield from (pair for pair in _paths(item, key) if pair[0] != key)


def _plain_key(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in _LEFT_OUT)


def _value(text: str, flag: str) -> Any:
    try:
        return load_yaml(text)
    except UserError as error:
        raise UserError(f"{flag}: {error}") from error
    except yaml.YAMLError:
        return text


def _differs(given: Any, value: Any) -> bool:
    """Return whether a number, a text or a list is another one than was given; a class is not compared."""
    if isinstance(value, Mapping) or isinstance(given, Mapping):
        return False
    if isinstance(value, list | tuple) and isinstance(given, list | tuple):
        return len(value) != len(given) or any(map(_differs, given, value))
    if isinstance(value, float) and isinstance(given, str):  # YAML takes 1e-3 for a text
        with contextlib.suppress(ValueError):
            given = float(given)
    return given != value and str(given) != str(value)


def _why_lost(key: str, values: Mapping[str, Any]) -> str:
    starts = list(prefixes(key))
    nearest = next((start for start in reversed(starts) if start in values), key.partition(".")[0])
    missing = starts[starts.index(nearest) + 1].rpartition(".")[2]
    value = values.get(nearest)
    if value is None:
        return f"{nearest} is null"
    return f"{_class_path(value) or f'{nearest}, which is {value},'} has no {missing}"


def _class_path(value: Any) -> str:
    return str(value["class_path"]) if isinstance(value, Mapping) and "class_path" in value else ""

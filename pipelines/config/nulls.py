"""Arguments of classes that are null although they cannot be None, which jsonargparse 4.53 accepts."""

import inspect
from collections.abc import Iterator
from typing import Any

from jsonargparse import Namespace

from pipelines.config.class_parser import class_parser
from pipelines.config.links import LINKED_KEYS
from pipelines.runtime.class_paths import import_named
from pipelines.runtime.errors import UserError


def check_nulls(config: Namespace) -> None:
    """Check that each argument of a class that is null may be None.

    Raises:
        UserError: One may not; the message names the key, and the class that does not accept it.
    """
    for key, class_path, argument in _null_arguments(config):
        if not (_has_default_none(class_path, argument) or _accepts_none(class_path, argument)):
            raise UserError(f"{key} is null, which {class_path} does not accept: give a value, or leave it out")


def _null_arguments(value: Any, key: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield each argument of a class that is null: its key, the class and its name."""
    if isinstance(value, list):
        for item in value:
            yield from _null_arguments(item, key)
    if not isinstance(value, Namespace):
        return
    arguments = value.get("init_args") if "class_path" in value else value
    for name, item in vars(arguments or Namespace()).items():  # type: ignore[no-untyped-call]
        path = f"{key}.{name}" if key else name
        if item is not None:
            yield from _null_arguments(item, path)
        elif "class_path" in value and name not in LINKED_KEYS:
            yield path, value["class_path"], name


def _has_default_none(class_path: str, name: str) -> bool:
    """Return whether the default of an argument is None; a parser, which can tell too, takes longer to make."""
    named = import_named(class_path)
    functions = [vars(base).get("__init__") for base in named.__mro__] if isinstance(named, type) else [named]
    found = (inspect.signature(function).parameters.get(name) for function in functions if callable(function))
    argument = next((parameter for parameter in found if parameter is not None), None)
    return argument is not None and argument.default is None


def _accepts_none(class_path: str, name: str) -> bool:
    given = Namespace(**{name: None})  # type: ignore[no-untyped-call]
    try:
        class_parser(class_path).validate(given, skip_unset=False, skip_required=True)
    except TypeError:
        return False
    except (KeyError, ValueError):  # what the parser does not know, or cannot check
        return True
    return True

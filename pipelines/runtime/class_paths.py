"""Class paths: import what one names. Classes that got another name have an old and a new path, the same value."""

import importlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

# Each new class path with the path under which earlier versions recorded the class. Both can be given for ever.
RENAMED_CLASSES: Mapping[str, str] = {
    "modules.probes.DeadUnits": "modules.probes.Units",
    "modules.probes.ShiftSensitivity": "modules.probes.Shifts",
}


def with_old_class_paths(value: Any) -> Any:
    """Return a value, or a configuration, with the old path in place of the new one; the argument is not changed."""
    if isinstance(value, str):
        return RENAMED_CLASSES.get(value, value)
    if isinstance(value, Mapping):
        return {key: with_old_class_paths(item) for key, item in value.items()}
    return [with_old_class_paths(item) for item in value] if isinstance(value, list) else value


@lru_cache(maxsize=10_000)  # thousands of runs have the same few values
def text_with_old_class_paths(text: str) -> str:
    """Return a param's text, a class path or JSON, with the old path in place of the new one."""
    for new, old in RENAMED_CLASSES.items():
        text = old if text == new else text.replace(f'"{new}"', f'"{old}"')
    return text


def import_named(class_path: str) -> Any:
    """Import the class or function that a path names; a class may be defined in another class.

    Raises:
        ImportError, AttributeError: There is none.
    """
    module, _, name = class_path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        outer, _, holder = module.rpartition(".")
        if not outer or error.name != module:
            raise
        return getattr(getattr(importlib.import_module(outer), holder), name)

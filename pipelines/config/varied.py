"""A parsed configuration with other numbers, without another parse, which takes a tenth of a second."""

import copy
from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace
from lightning import seed_everything

from pipelines.config.cli import LitlabCLI


def varied(cli: LitlabCLI, values: Mapping[str, Any], seed: int) -> LitlabCLI | None:
    """Return a configuration with another seed, and other numbers of the module; None if it must be parsed.

    Like a parse, it sets the seed of all generators.

    Args:
        cli: A configuration that gives a number for each of these keys.
        values: Keys such as `model.optimizer.lr`, with numbers that passed a parse or lie between such numbers.
        seed: The seed.
    """
    config: Namespace = cli.config.clone()
    if not all(_set_number(config, key, value) for key, value in values.items()):
        return None
    config.seed_everything = seed
    other = copy.copy(cli)
    other.config = config
    for cached in ("_resolved", "callbacks"):
        vars(other).pop(cached, None)
    seed_everything(seed, workers=True, verbose=False)
    return other


def _set_number(config: Namespace, key: str, value: Any) -> bool:
    """Set a number in the place of another one; return whether there is one."""
    node: Any = config
    *path, name = key.split(".")
    for part in path:
        node = _arguments(node).get(part)
        if not isinstance(node, Namespace):
            return False
    arguments = _arguments(node)
    before = arguments.get(name)
    numbers = [number for number in (before, value) if isinstance(number, int | float) and not isinstance(number, bool)]
    if len(numbers) < 2 or (isinstance(before, int) and isinstance(value, float)):
        return False
    arguments[name] = type(before)(value)
    return True


def _arguments(node: Namespace) -> Namespace:
    """Return the arguments of a class, or the keys of a section."""
    return node.init_args if "init_args" in node else node

"""What a module takes from its data module: the arguments `num_classes`, `input_shape` and `num_targets`.

A value is taken if the module has the argument, the data module has the attribute when it is created, and the user gave
none. A user's value that differs from the data's is an error.
"""

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser

from modules.base import Learner
from pipelines.runtime.class_paths import import_named

LINKED_KEYS = ("num_classes", "input_shape", "num_targets")


class LinkParser(LightningArgumentParser):
    """Parser for models that are classes or functions; jsonargparse 4.53 links only arguments of classes."""

    def add_function_arguments(self, *args: Any, linked_targets: set[str] | None = None, **kwargs: Any) -> list[str]:
        """Add the arguments of a function that returns a module. Its linked arguments are made optional afterwards."""
        added: list[str] = super().add_function_arguments(*args, **kwargs)
        return added


class ModelLinks:
    """The linked arguments of the model of a configuration.

    Args:
        parser: Gets the links: they make the arguments optional, and pass their values when the model is created.
    """

    def __init__(self, parser: LightningArgumentParser) -> None:
        self._parser = parser
        self._values: dict[str, Any] = {}
        for key in LINKED_KEYS:
            target = f"model.init_args.{key}"
            parser.link_arguments("data", target, compute_fn=self._value_of(key), apply_on="instantiate")

    def _value_of(self, key: str) -> Callable[[Any], Any]:
        return lambda data: self._values.get(key)

    def take(self, config: Namespace, given: Namespace, data: LightningDataModule | None) -> None:
        """Take the values from the data. Those of anybody else's module become part of the configuration.

        Args:
            config: The configuration.
            given: What the user gave of it, without defaults.
            data: The data module.

        Raises:
            ValueError: The data have another value than the user gave, or none although the model requires one.
        """
        own = is_learner(config)
        for key, default in _arguments(config).items():
            value = _attribute(data, key)
            if value is not None and not own and not self._is_valid(config, key, value):
                value = None
            _check(key, value, given.get(f"model.init_args.{key}"), config.model.class_path, data)
            self._values[key] = default if value is None else value
            if value is not None and not own:
                config[f"model.init_args.{key}"] = _plain(value)

    def _is_valid(self, config: Namespace, key: str, value: Any) -> bool:
        """Return whether a value has the type that an argument of the model takes; untyped, that of its default."""
        config, name, plain = config.clone(), f"model.init_args.{key}", _plain(value)
        default = _plain(config[name])
        if default is not None and isinstance(default, list) != isinstance(plain, list):
            return False
        config[name] = plain
        try:
            self._parser.validate(config)
        except (TypeError, ValueError, KeyError):
            return False
        return True


def remove_derived(resolved: dict[str, Any], config: Namespace, given: Namespace) -> None:
    """Remove from a resolved configuration what litlab's modules take from the data, and links without a value."""
    model = resolved["model"]
    if not isinstance(model, dict):
        return
    arguments, own = model.get("init_args", {}), is_learner(config)
    for key in LINKED_KEYS:
        if arguments.get(key) is None or (own and given.get(f"model.init_args.{key}") is None):
            arguments.pop(key, None)
    if not arguments:
        model.pop("init_args", None)


def is_learner(config: Namespace) -> bool:
    """Return whether the model of a configuration is one of litlab's, or a subclass; False if it is not given."""
    class_path = config.get("model.class_path")
    try:
        return class_path is not None and _is_learner(import_named(class_path))
    except Exception:  # whatever a user's file raises when it is imported; the parser reports it
        return False


def _arguments(config: Namespace) -> dict[str, Any]:
    """Return the linked arguments that the model has, with the values given or their defaults."""
    arguments = config.get("model.init_args") or {}
    return {key: arguments[key] for key in LINKED_KEYS if key in arguments}


def _check(key: str, value: Any, given: Any, class_path: str, data: LightningDataModule | None) -> None:
    """Check the value of a data module, None if it has none, against the one that the user gave."""
    model = import_named(class_path)
    if value is None:
        if given is None and _is_required(model, key):
            source = "there is no data module" if data is None else f"{type(data).__name__} has no {key}"
            raise ValueError(f"model.{key} is required: {source} when it is created")
    elif given is not None and _is_learner(model):
        raise ValueError(f"model.{key} is known from the data and must not be set")
    elif given is not None and _plain(given) != _plain(value):
        raise ValueError(f"model.{key} is {given}, but {type(data).__name__}.{key} is {value}: leave out model.{key}")


def _attribute(data: LightningDataModule | None, key: str) -> Any:
    try:
        value = getattr(data, key, None)
    except Exception:  # a property that needs the data, which are not read yet
        return None
    return None if callable(value) else value


def _plain(value: Any) -> Any:
    """Return a number or a shape in the types that a configuration has."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def _is_learner(model: Any) -> bool:
    returned = model if isinstance(model, type) else get_type_hints(model).get("return")
    return isinstance(returned, type) and issubclass(returned, Learner)


def _is_required(model: Any, key: str) -> bool:
    """Return whether a class or function has an argument without a default."""
    functions = [vars(base).get("__init__") for base in model.__mro__] if isinstance(model, type) else [model]
    found = (inspect.signature(function).parameters.get(key) for function in functions if callable(function))
    argument = next((parameter for parameter in found if parameter is not None), None)
    return argument is not None and argument.default is argument.empty

"""Networks of any package, by class path."""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

from torch import nn

from modules.architecture import IMAGENET_MEAN, IMAGENET_STD, Architecture, InputFormat, State

DEFAULT_SIZE = 224


@final
class ImportedNetwork(Architecture):
    """A network that a class or a function returns.

    If it has the attribute `pretrained_cfg`, a dictionary as timm's networks have it, its `mean`, `std`, `input_size`
    and `interpolation` are those of the input, and its `label_names` the names of the classes. Otherwise the input is
    as ImageNet's, 224 and bilinear, and the classes have numbers.

    Args:
        name: Class path of the class or function. If it has an argument `pretrained`, it has published weights.
        arguments: Its other arguments.

    Raises:
        ValueError: It cannot be imported or called, or returns something else.
    """

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        self.name, self._arguments = name, arguments
        self._function = import_function(name)
        if self._has_published_weights:
            self.source = name
        config: dict[str, Any] = getattr(self.build(), "pretrained_cfg", {})
        size = config.get("input_size", (3, DEFAULT_SIZE, DEFAULT_SIZE))[-1]
        mean, std = config.get("mean", IMAGENET_MEAN), config.get("std", IMAGENET_STD)
        self.input_format = InputFormat(size, mean, std, config.get("interpolation", "bilinear"))
        self.categories = tuple(config.get("label_names") or ())

    @property
    def _has_published_weights(self) -> bool:
        return "pretrained" in inspect.signature(self._function).parameters

    def build(self, image_size: int | None = None) -> nn.Module:
        return self._call(**{"pretrained": False} if self._has_published_weights else {})

    def cached(self) -> Path | None:
        return None

    def download(self) -> State:
        if not self._has_published_weights:
            raise ValueError(
                f"model.pretrained is true, but {self.name} has no argument pretrained: set model.weights to a file "
                "or model.pretrained to false"
            )
        return self._call(pretrained=True).state_dict()

    def _call(self, **options: Any) -> nn.Module:
        try:
            network = self._function(**options | self._arguments)
        except Exception as error:
            raise ValueError(f"{self.name} fails: {type(error).__name__}: {error}") from error
        if not isinstance(network, nn.Module):
            raise ValueError(f"{self.name} returns a {type(network).__name__}, not a torch.nn.Module")
        return network


def import_function(path: str) -> Callable[..., Any]:
    """Import what a class path names: a class, a function, or a method of a class.

    Raises:
        ValueError: There is none.
    """
    module, _, name = path.rpartition(".")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        outer, _, holder = module.rpartition(".")
        if not outer or error.name != module:
            raise ValueError(f"{path}: {error}") from error
        found = getattr(_import(path, outer), holder, None)
    except ImportError as error:
        raise ValueError(f"{path}: {error}") from error
    if not callable(getattr(found, name, None)):
        raise ValueError(f"{path}: {module} has no class or function {name}")
    function: Callable[..., Any] = getattr(found, name)
    return function


def _import(path: str, module: str) -> Any:
    """Import the module of a class whose method is named."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{path}: {error}") from error

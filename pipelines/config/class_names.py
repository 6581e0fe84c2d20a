"""Suggest the class that a misspelt name stands for."""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pipelines.config.experiments import experiment_contents
from pipelines.runtime.class_paths import import_named

_BASES: dict[str, tuple[type[Any], ...]] = {
    "optimizer": (Optimizer,),
    "lr_scheduler": (LRScheduler, ReduceLROnPlateau),
    "callbacks": (Callback,),
    "logger": (Logger,),
    "profiler": (Profiler,),
    "data": (LightningDataModule,),
    "model": (LightningModule,),
}  # by the last part of a key


def nearest_class(key: str, given: str) -> str | None:
    """Return the class that a misspelt one stands for, as it can be given; None if none is similar.

    Args:
        key: The key that takes the class.
        given: Its name or import path.
    """
    paths = set(_paths_in_experiments(key))
    if "." in given:
        paths |= {f"{given.rpartition('.')[0]}.{name}" for name in _classes_beside(given)}
        found = get_close_matches(given, sorted(paths), n=1, cutoff=0.8)
        return found[0] if found else None
    by_name = {path.rpartition(".")[2]: path for path in paths}
    bases = _BASES.get(key.rpartition(".")[2].removesuffix("+"), ())
    by_name |= {name: name for base in bases for name in _subclasses(base)}
    found = get_close_matches(given, sorted(by_name), n=1, cutoff=0.7)
    return by_name[found[0]] if found else None


def _paths_in_experiments(key: str) -> Iterator[str]:
    """Yield the classes that experiments have as a key; those of a module's or data module's are enough."""
    if key not in ("data", "model"):
        return
    for content in experiment_contents():
        section = content.get(key)
        if isinstance(section, dict) and "class_path" in section:
            yield str(section["class_path"])


def _classes_beside(class_path: str) -> list[str]:
    """Return the public classes of the module that an import path names; none if there is no such module."""
    module = class_path.rpartition(".")[0]
    try:
        found: Any = import_named(module) if "." in module else __import__(module)
    except (ImportError, AttributeError, ValueError):
        return []
    return [name for name, value in vars(found).items() if isinstance(value, type) and not name.startswith("_")]


def _subclasses(base: type[Any]) -> Iterator[str]:
    """Yield the names of the public, imported subclasses of torch and Lightning."""
    for subclass in base.__subclasses__():
        if subclass.__module__.startswith(("torch.", "lightning.")) and not subclass.__name__.startswith("_"):
            yield subclass.__name__
        yield from _subclasses(subclass)

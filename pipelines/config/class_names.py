"""Suggest the class that a misspelt name stands for."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from pipelines.config.experiments import experiment_contents

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
        found = get_close_matches(given, sorted(paths), n=1, cutoff=0.8)
        return _nearest_path(given) or (found[0] if found else None)
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


def _nearest_path(given: str) -> str | None:
    """Return the import path that a misspelt one stands for, corrected part by part; None if a part is not similar."""
    *packages, name = given.split(".")
    module: ModuleType | None = None
    for package in packages:
        nearest = _nearest(package, _modules_in(module))
        module = None if nearest is None else _import(nearest if module is None else f"{module.__name__}.{nearest}")
        if module is None:
            return None
    nearest = _nearest(name, [] if module is None else _defined_in(module))
    return None if module is None or nearest is None else f"{module.__name__}.{nearest}"


def _nearest(given: str, names: Iterable[str]) -> str | None:
    known = sorted(set(names))
    return given if given in known else next(iter(get_close_matches(given, known, n=1, cutoff=0.7)), None)


def _modules_in(package: ModuleType | None) -> list[str]:
    """Return the modules of a package; of None, those that stand at the top, those of the user too."""
    folders = sys.path if package is None else list(getattr(package, "__path__", []))
    without_init = (path for folder in folders if Path(folder).is_dir() for path in Path(folder).iterdir())
    names = [path.name for path in without_init if path.name.isidentifier() and path.is_dir()]
    return [*names, *(module.name for module in pkgutil.iter_modules(folders))]


def _import(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except Exception:  # whatever a file raises that the user may not have meant
        return None


def _defined_in(module: ModuleType) -> list[str]:
    """Return the public classes of a module, and its functions."""
    kept = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return [name for name, value in kept.items() if isinstance(value, type) or inspect.isfunction(value)]


def _subclasses(base: type[Any]) -> Iterator[str]:
    """Yield the names of the public, imported subclasses of torch and Lightning."""
    for subclass in base.__subclasses__():
        if subclass.__module__.startswith(("torch.", "lightning.")) and not subclass.__name__.startswith("_"):
            yield subclass.__name__
        yield from _subclasses(subclass)

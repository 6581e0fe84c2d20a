"""Make `pytorch_lightning` and `lightning_fabric` other names of `lightning.pytorch` and `lightning.fabric`.

Lightning is published under two names whose classes are not the same. With one set of modules behind both, litlab's
Trainer takes a class that was written for either. Imports nothing heavy.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_loader
from types import ModuleType

OTHER_NAMES = {"pytorch_lightning": "lightning.pytorch", "lightning_fabric": "lightning.fabric"}


class _AliasFinder(MetaPathFinder, Loader):
    """Find `pytorch_lightning.X`, whether or not it is installed, as the module `lightning.pytorch.X` itself."""

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        name = _real_name(fullname)
        return spec_from_loader(fullname, self) if name and find_spec(name) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(_real_name(spec.name))
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own spec back, which the import system has replaced; its code has run."""
        name = next(name for name in self._specs if sys.modules.get(name) is module)
        module.__spec__ = self._specs.pop(name)


def unify_lightning_names() -> None:
    """Install the names, unless `pytorch_lightning` was imported already, as modules of its own."""
    if not separate_lightning() and not any(isinstance(finder, _AliasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AliasFinder())


def separate_lightning() -> bool:
    """Return whether `pytorch_lightning` was imported as modules of its own, before litlab could prevent it."""
    return any(
        name in sys.modules and sys.modules[name] is not sys.modules.get(real) for name, real in OTHER_NAMES.items()
    )


def _real_name(name: str) -> str:
    package, dot, rest = name.partition(".")
    return f"{OTHER_NAMES[package]}{dot}{rest}" if package in OTHER_NAMES else ""

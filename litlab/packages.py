"""Import litlab's packages, although a project may have packages of the same name first on Python's path."""

import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path

ROOT = Path(__file__).parents[1]


def import_own_packages() -> None:
    """Import litlab's packages, and join those of the project to them; see pipelines/runtime/project_packages.py.

    Raises:
        ImportError: Another package of that name is imported already.
    """
    _import_own("pipelines")
    from pipelines.runtime.project_packages import PACKAGES, join_project

    for name in PACKAGES:
        _import_own(name)
    join_project()


def _import_own(name: str) -> None:
    if name in sys.modules:
        where = [*getattr(sys.modules[name], "__path__", [])]
        if where[:1] != [str(ROOT / name)]:
            raise ImportError(f"{name} is already imported from {where[0] if where else 'a file'}: import litlab first")
        return
    spec = PathFinder.find_spec(name, [str(ROOT)])
    if spec is None or spec.loader is None:
        raise ImportError(f"litlab is not installed completely: {ROOT / name} is missing")
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])

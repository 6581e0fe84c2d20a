"""Packages of a project beside litlab's of the same name: they are joined, and litlab's modules win.

A project may have folders named `modules`, `datamodules`, `pipelines` or `sweeps`, with or without `__init__.py`. They
are appended to the search paths of litlab's packages. What a project's `__init__.py` defines is not merged.
"""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from pkgutil import extend_path
from types import ModuleType

from pipelines.runtime.environment import project_folder
from pipelines.runtime.log import logger

PACKAGES = ("datamodules", "modules", "pipelines", "sweeps")
SHOWN = 3  # names in a message
_warned: set[str] = set()


def join_project() -> None:
    """Append the current folder and the project's to Python's path, and their packages to litlab's."""
    folders = map(str, dict.fromkeys((Path.cwd(), project_folder())))
    sys.path += [folder for folder in folders if folder not in sys.path]  # "" is another one after a change of folder
    for name in PACKAGES:
        package = importlib.import_module(name)
        package.__path__ = extend_path([*package.__path__], name)


def warn_of_hidden_modules(*used: type) -> None:
    """Warn of modules of the project in whose place litlab's of the same name were imported; of each once per process.

    Args:
        used: The classes that a command uses. What the user's files have imported is searched, too.
    """
    if not (hidden := {".".join(path.with_suffix("").parts): str(path) for path in _hidden_modules()}):
        return
    imported = {cls.__module__ for cls in used} | {*_imported_by_the_user()}
    found = sorted(hidden[name] for name in hidden.keys() & imported if hidden[name] not in _warned)
    _warned.update(found)
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        logger.warning("%s%s: litlab's module of that name is imported instead", ", ".join(found[:SHOWN]), more)


def hidden_module(name: str) -> str:
    """Return the project's file that litlab's module of this dotted name hides; "" if there is none."""
    return next((str(path) for path in _hidden_modules() if ".".join(path.with_suffix("").parts) == name), "")


def _imported_by_the_user() -> Iterator[str]:
    """Yield the modules from which the user's files have what they import by name."""
    from pipelines.runtime.user_traceback import is_user_file

    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name == "__main__" or (file and is_user_file(str(file))):
            for value in list(vars(module).values()):
                yield str(value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", ""))


def _hidden_modules() -> Iterator[Path]:
    for name in PACKAGES:
        own, *others = map(Path, importlib.import_module(name).__path__)
        for folder in {Path.cwd() / name, project_folder() / name} & {*others}:
            yield from (Path(name, path.name) for path in folder.iterdir() if _is_hidden(path, own))


def _is_hidden(path: Path, own: Path) -> bool:
    """Return whether a module or a folder with modules has the name of one of litlab's."""
    if path.name.startswith(("__", ".")) or not (path.suffix == ".py" or any(path.glob("*.py"))):
        return False
    return (own / f"{path.stem}.py").is_file() or (own / path.stem / "__init__.py").is_file()

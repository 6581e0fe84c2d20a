"""Packages of a project beside litlab's of the same name: they are joined, and litlab's modules win.

A project may have folders named `modules`, `datamodules`, `pipelines` or `sweeps`, with or without `__init__.py`. They
are appended to the search paths of litlab's packages. What a project's `__init__.py` defines is not merged.
"""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from pkgutil import extend_path

from pipelines.runtime.environment import project_folder
from pipelines.runtime.log import logger

PACKAGES = ("datamodules", "modules", "pipelines", "sweeps")
SHOWN = 3  # names in a message


def join_project() -> None:
    """Append the current folder and the project's to Python's path, and their packages to litlab's."""
    folders = map(str, dict.fromkeys((Path.cwd(), project_folder())))
    sys.path += [folder for folder in folders if folder not in sys.path]  # "" is another one after a change of folder
    for name in PACKAGES:
        package = importlib.import_module(name)
        package.__path__ = extend_path([*package.__path__], name)


def warn_of_hidden_modules() -> None:
    """Warn of modules of the project that cannot be imported, since litlab has one of that name."""
    if hidden := sorted({str(path) for path in _hidden_modules()}):
        more = f" and {len(hidden) - SHOWN} more" if len(hidden) > SHOWN else ""
        logger.warning("%s%s: litlab's module of that name is imported instead", ", ".join(hidden[:SHOWN]), more)


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

"""Make a project from a template: a folder with a module, a data module, an experiment, a space and a test."""

import importlib.util
import re
import shutil
from pathlib import Path
from typing import Literal, get_args

from pipelines.runtime.errors import UserError

Template = Literal["image", "tabular", "blank"]
FOLDER = Path(__file__).parents[1] / "templates"
NAME, PACKAGE = "my-project", "my_project"  # what the names of project and package replace in names and contents


def new_project(folder: Path, template: Template) -> str:
    """Make a project in a new or empty folder. Name, experiment and space are called as the folder.

    Returns:
        The name of the project.

    Raises:
        UserError: The template does not exist, the folder has files or cannot be written, or its name cannot be used.
    """
    if template not in get_args(Template):
        raise UserError(f"--template {template}: expected one of {', '.join(get_args(Template))}")
    name = folder.absolute().name
    package = _package_name(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not an empty folder")
    try:
        for part in ("common", template):
            for source in sorted(path for path in (FOLDER / part).rglob("*") if _is_part(path)):
                relative = source.relative_to(FOLDER / part).as_posix()
                relative = ".gitignore" if relative == "gitignore" else _rename(relative, name, package)
                target = folder / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(_rename(source.read_text(), name, package))
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
    return name


def _is_part(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def _rename(text: str, name: str, package: str) -> str:
    return text.replace(PACKAGE, package).replace(NAME, name)


def _package_name(name: str) -> str:
    """Return the name of the project's package: the folder's, in lower case, with "_" for "-", blanks and dots.

    Raises:
        UserError: It is no name of a Python package, or one of that name is installed.
    """
    package = re.sub(r"[-. ]+", "_", name.lower())
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9 ._-]*", name) or not package.isidentifier():
        raise UserError(f"{name!r} cannot be the name of a project: use letters, digits, '-' and '_', a letter first")
    if importlib.util.find_spec(package) is not None:
        raise UserError(f"Python has a package {package} already: name the project differently")
    return package

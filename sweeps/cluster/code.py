"""The code of a project, as it travels to nodes that do not have its folder."""

import io
import os
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from pipelines.runtime.environment import project_folder
from pipelines.runtime.errors import UserError
from pipelines.tracking.source_code import MAX_FILE, PRIVATE, SOURCE_SUFFIXES

MAX_CODE = 20_000_000  # bytes
SKIPPED = ("__pycache__", "node_modules", "mlartifacts", "mlruns", "unsent", "data")


def pack_code() -> tuple[str, str, bytes]:
    """Return the project's folder, the current folder within it, and the project's source files as a zip file.

    Source files are those that runs keep, see `pipelines.tracking.source_code`. Files of the home folder or the root
    are not searched: these are no projects.

    Raises:
        UserError: There are too many.
    """
    top, current, content = project_folder(), Path.cwd(), io.BytesIO()
    is_project = top not in (Path.home(), Path(top.anchor))
    size = 0
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in _source_files(top) if is_project else ():
            size += path.stat().st_size
            if size > MAX_CODE:
                raise UserError(f"--cluster: the source files in {top} have more than {MAX_CODE // 1_000_000} MB")
            packed.write(path, path.relative_to(top))
    return str(top), str(current.relative_to(top)), content.getvalue()


def _source_files(top: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if not _is_skipped(Path(folder, name))]
        for path in (Path(folder, name) for name in sorted(names)):
            is_private = any(fnmatch(path.name.lower(), pattern) for pattern in PRIVATE)
            is_source = path.suffix in SOURCE_SUFFIXES and not is_private and path.is_file()
            if is_source and path.stat().st_size <= MAX_FILE:
                yield path


def _is_skipped(folder: Path) -> bool:
    return folder.name.startswith(".") or folder.name in SKIPPED or (folder / "pyvenv.cfg").exists()

"""Self-contained HTML pages: templates, and atomic writes.

A page has no script, and its Content-Security-Policy forbids everything from outside the page.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.files import write_atomically
from pipelines.runtime.outputs import check_output

MARK = b'<meta name="generator" content="litlab">'


def render(template: str, context: Mapping[str, Any]) -> str:
    """Render a template of this package. Everything is escaped."""
    import jinja2

    loader = jinja2.PackageLoader("pipelines.reporting")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(context)


def check_output_path(path: Path) -> None:
    """Check that a page can be written.

    Raises:
        UserError: The path is a folder or a file that litlab did not write, or its folder does not exist or cannot be
            written to.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise UserError(f"--out {path} is a folder; name a file, such as {path / 'report.html'}")
    if not folder.is_dir():
        raise UserError(f"--out {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise UserError(f"--out {path}: the folder {folder} cannot be written to")
    check_output(path, MARK)


def write(path: Path, text: str) -> None:
    """Write a page in one step: a reader sees the old or the new content.

    Raises:
        UserError: The file cannot be written, for example because the disk is full.
    """
    try:
        write_atomically(path, text)
    except OSError as error:
        raise UserError(f"--out {path} cannot be written: {error.strerror}") from error

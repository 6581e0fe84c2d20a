"""Self-contained HTML pages: templates, inline figures, atomic writes.

A page has no script, and its Content-Security-Policy forbids everything from outside the page.
"""

import base64
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.files import write_atomically

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

MAX_SVG = 500_000  # characters; a larger figure, such as one of many points, may be smaller as PNG
DPI = 110
MIN_SCALE = 0.6  # of the size that a figure was drawn in; on a narrower screen it scrolls
_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # characters that a label may contain but XML may not


def render(template: str, context: Mapping[str, Any]) -> str:
    """Render a template of this package. Everything is escaped unless it is `Markup`."""
    import jinja2

    loader = jinja2.PackageLoader("pipelines.reporting")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(context)


def check_output_path(path: Path) -> Path:
    """Return the path of a page that is to be written.

    Raises:
        UserError: It is a folder, or its folder does not exist or cannot be written to.
    """
    folder = path.absolute().parent
    if path.is_dir():
        raise UserError(f"--out {path} is a folder; name a file, such as {path / 'report.html'}")
    if not folder.is_dir():
        raise UserError(f"--out {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise UserError(f"--out {path}: the folder {folder} cannot be written to")
    return path


def write(path: Path, text: str) -> None:
    """Write a page in one step: a reader sees the old or the new content.

    Raises:
        UserError: The file cannot be written, for example because the disk is full.
    """
    try:
        write_atomically(path, text)
    except OSError as error:
        raise UserError(f"--out {path} cannot be written: {error.strerror}") from error


def inline_figure(figure: "Figure", name: str, description: str) -> "Markup":
    """Return a figure as an element of the page: an SVG, or a PNG if the SVG is large.

    Args:
        figure: The figure.
        name: Unique within the page.
        description: What the figure shows, for screen readers.
    """
    import matplotlib

    text, pixels = io.StringIO(), io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):  # makes the output reproducible
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = _NOT_XML.sub("", text.getvalue())
    if len(svg) > MAX_SVG:
        figure.savefig(pixels, format="png", dpi=DPI)
        if pixels.tell() < MAX_SVG:
            return inline_png(pixels.getvalue(), description, DPI)
    return _image("image/svg+xml", svg.encode(), description, _size(72 * figure.get_figwidth(), "pt"))


def inline_png(png: bytes, description: str, dpi: int = 120) -> "Markup":
    """Return a PNG file as an element of the page; its size follows from the dots per inch that it was drawn with."""
    width = int.from_bytes(png[16:20], "big") * 96 / dpi  # the header chunk comes first
    return _image("image/png", png, description, _size(width, "px"))


def _image(kind: str, content: bytes, description: str, style: str) -> "Markup":
    from markupsafe import Markup

    source = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return Markup('<img src="{}" alt="{}" style="{}">').format(source, description, style)


def _size(width: float, unit: str) -> str:
    """Limit the width: not larger than drawn, not too small to read."""
    return f"max-width: {width:g}{unit}; min-width: {MIN_SCALE * width:g}{unit}"

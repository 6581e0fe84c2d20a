"""HTML pages that need nothing but themselves: templates, figures inside the page, files that are whole or not there.

A page has no script, and its Content-Security-Policy forbids whatever lies outside of it.
"""

import base64
import contextlib
import io
import os
import re
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.runtime.errors import UserError

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

MAX_SVG = 500_000  # characters; a figure of more, such as one of many points, may be smaller as pixels
DPI = 110
SMALLEST = 0.6  # of the size that a figure is drawn in; on a narrower screen it scrolls
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # characters that a name may have, but no XML
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fill in a template of this package; everything is escaped unless it is `Markup`."""
    import jinja2

    loader = jinja2.PackageLoader("pipelines.reporting")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(context)


def target(path: Path) -> Path:
    """The file that a page shall be written to.

    Raises:
        UserError: It is a folder, or in none that can be written to.
    """
    if path.is_dir():
        raise UserError(f"--out {path} is a folder; name a file, such as {path / 'report.html'}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--out {path}: there is no folder {path.absolute().parent}")
    if not os.access(path.absolute().parent, os.W_OK):
        raise UserError(f"--out {path}: the folder {path.absolute().parent} cannot be written to")
    return path


def write(path: Path, text: str) -> None:
    """Write a file as a whole: who opens it meanwhile sees the former one.

    Raises:
        UserError: There is no room for it.
    """
    handle, scratch = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(scratch).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
        Path(scratch).replace(path)
    except OSError as error:
        raise UserError(f"--out {path} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):  # it has become the file
            Path(scratch).unlink()


def inline(figure: "Figure", name: str, description: str) -> "Markup":
    """A figure as an element of the page.

    Args:
        figure: As drawn.
        name: Of the figure, unlike those of all others in the page.
        description: What it shows, for those who cannot see it.
    """
    import matplotlib
    from markupsafe import Markup

    text, pixels = io.StringIO(), io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):  # so that a page can be made again
        figure.savefig(text, format="svg", metadata={"Date": None})
    if len(text.getvalue()) > MAX_SVG:
        figure.savefig(pixels, format="png", dpi=DPI)
        if pixels.tell() < MAX_SVG:
            return image(pixels.getvalue(), description, DPI)
    return Markup(_own(text.getvalue(), name, description))  # noqa: S704 (ElementTree has escaped it)


def image(png: bytes, description: str, dpi: int = 120) -> "Markup":
    """A PNG file as an element of the page; with how many dots per inch it was drawn says how large it is shown."""
    from markupsafe import Markup

    width = int.from_bytes(png[16:20], "big") * 96 / dpi  # of the header chunk, which comes first
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return Markup('<img src="{}" alt="{}" style="{}">').format(source, description, _size(width, "px"))


def _own(svg: str, name: str, description: str) -> str:
    """Matplotlib's file as an element: ids that no other figure has, no style that would hold for the whole page."""
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    root = ET.fromstring(_UNSEEN.sub("", svg))  # noqa: S314 (as Matplotlib wrote it)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key.rpartition("}")[2] == "href" and value.startswith("#"):
                element.set(key, f"#{name}-{value[1:]}")
            else:
                element.set(key, _REFERENCE.sub(rf"url(#{name}-\1)", value))
    width = float(root.attrib.pop("width").removesuffix("pt"))
    root.attrib.pop("height")
    own = {"stroke-linejoin": "round", "stroke-linecap": "butt"}  # what the style said
    root.attrib.update({"role": "img", "aria-label": description, "style": _size(width, "pt"), **own})
    return ET.tostring(root, encoding="unicode")


def _size(width: float, unit: str) -> str:
    """As wide as there is room for, but neither larger than drawn nor too small to read."""
    return f"max-width: {width:g}{unit}; min-width: {SMALLEST * width:g}{unit}"


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current

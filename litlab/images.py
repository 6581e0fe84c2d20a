"""Images that a notebook shows."""

import base64
import html
from collections.abc import Iterator, Mapping
from pathlib import Path


class Image:
    """A PNG file, which a notebook shows as the value of a cell.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"<litlab.Image {self.path}>"

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


class Images(Mapping[str, Image]):
    """Images by name; a notebook shows all of them."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._images = {name: Image(path) for name, path in paths.items()}

    def __getitem__(self, name: str) -> Image:
        return self._images[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._images)

    def __len__(self) -> int:
        return len(self._images)

    def __repr__(self) -> str:
        return f"<litlab.Images {', '.join(self) or 'none'}>"

    def _repr_html_(self) -> str:
        return "".join(_shown(name, image) for name, image in self.items()) or "no figures"


def _shown(name: str, image: Image) -> str:
    content = base64.b64encode(image.path.read_bytes()).decode()
    title = html.escape(name)
    style = "display:inline-block;margin:4px;text-align:center"
    return f'<figure style="{style}"><img alt="{title}" src="data:image/png;base64,{content}"><br>{title}</figure>'

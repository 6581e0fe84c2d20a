"""Output in a notebook: text as it is printed, and one output of a cell that is updated in place.

It needs neither ipywidgets nor an extension, and works in Jupyter, Colab and VS Code. Imports nothing heavy.
"""

import importlib
import io
import sys
from typing import Any

from rich import console

WIDTH = 100  # characters
_FORMAT = '<pre style="line-height:1.2;white-space:pre;overflow-x:auto">{code}</pre>'


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    kind = type(shell)
    return kind.__name__ == "ZMQInteractiveShell" or kind.__module__.startswith("google.colab")


class UpdatedOutput:
    """An output of the current cell, which appears when it is first shown and is replaced from then on."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, content: console.RenderableType) -> None:
        """Show something of rich in the place of what was shown before."""
        output: Any = importlib.import_module("IPython.display")
        page = output.HTML(as_html(content))
        if self._handle is None:
            self._handle = output.display(page, display_id=True)
        else:
            self._handle.update(page)


def as_html(content: console.RenderableType) -> str:
    """Return something of rich as HTML."""
    recorder = console.Console(
        file=io.StringIO(), record=True, width=WIDTH, force_terminal=True, force_jupyter=False, color_system="truecolor"
    )
    recorder.print(content)
    return recorder.export_html(inline_styles=True, code_format=_FORMAT)

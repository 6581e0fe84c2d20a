"""The author's own text in a page: Markdown (CommonMark and tables). HTML in it is shown as text.

A page loads nothing, so of an image only the alternative text is shown.
"""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.runtime.errors import UserError

MAX_BYTES = 1_000_000


def render_markdown(path: Path) -> str:
    """Return the HTML of a Markdown file. Raw HTML is escaped.

    Raises:
        UserError: The file cannot be read, is no text, or is too long.
    """
    from markdown_it import MarkdownIt

    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"--text {path} is longer than {MAX_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"--text {path} is not a text in UTF-8") from error
    except OSError as error:
        raise UserError(f"--text {path} cannot be read: {error.strerror}") from error
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("image", _alternative_text)
    return str(parser.render(text))


def _alternative_text(renderer: Any, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
    return html.escape(tokens[index].content)

"""Text that others wrote, such as the names of runs of a shared server, as a terminal may see it."""

import unicodedata


def plain(text: str) -> str:
    """The text, with the characters that could move the cursor, set colours or turn lines around written out."""
    return "".join(char if char in "\n\t" or _is_seen(char) else ascii(char)[1:-1] for char in text)


def _is_seen(char: str) -> bool:
    kind = unicodedata.category(char)
    return kind[0] != "C" and kind not in ("Zl", "Zp")

"""Text that others wrote, such as the names of runs of a shared server, as a terminal may see it."""

import re
import shlex
import unicodedata
from collections.abc import Sequence


def escape_control_characters(text: str) -> str:
    """The text, with the characters that could move the cursor, set colours or turn lines around written out."""
    return "".join(char if char in "\n\t" or _is_seen(char) else ascii(char)[1:-1] for char in text)


def _is_seen(char: str) -> bool:
    kind = unicodedata.category(char)
    return kind[0] != "C" and kind not in ("Zl", "Zp")


def typed(verb: str, argv: Sequence[str]) -> str:
    """A command of ours, as one would type it."""
    return redact_credentials(shlex.join(["litlab", verb, *argv]))


def redact_credentials(text: str) -> str:
    """The text, with the password of every URI in it replaced by stars."""
    text = re.sub(r"(://[^\s:/@]*):[^\s@/]*@", r"\1:***@", text)
    return re.sub(r"([?&](?:ssl)?password=)[^\s&'\"]*", r"\1***", text)

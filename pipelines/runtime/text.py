"""Make text safe to show: control characters, credentials, command lines, error messages."""

import json
import re
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

MAX_LINES = 20  # of an error's message


def escape_control_characters(text: str) -> str:
    """Escape characters that could move the cursor, set colours or reverse the text direction in a terminal.

    For text from other people, such as run names on a shared server. Line feeds and tabs are kept.
    """
    return "".join(char if char in "\n\t" or _is_printable(char) else ascii(char)[1:-1] for char in text)


def _is_printable(char: str) -> bool:
    category = unicodedata.category(char)
    return category[0] != "C" and category not in ("Zl", "Zp")


def format_command(verb: str, argv: Sequence[str]) -> str:
    """Return a litlab command line, quoted for a shell and without passwords."""
    return redact_credentials(shlex.join(["litlab", verb, *argv]))


def option_tokens(options: Mapping[str, str | Sequence[str] | None]) -> list[str]:
    """Return the options that are set, as on the command line."""
    values = {option: [value] if isinstance(value, str) else value for option, value in options.items() if value}
    return [token for option, tokens in values.items() for token in (option, *tokens)]


def redact_credentials(text: str) -> str:
    """Replace the password of every URI in a text by ***."""
    text = re.sub(r"(://[^\s:/@]*):[^\s@/]*@", r"\1:***@", text)
    return re.sub(r"([?&](?:ssl)?password=)[^\s&'\"]*", r"\1***", text)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message without passwords; the error's class name if it has no message.

    Of a database error that SQLAlchemy or MLflow wraps, it is the message of the database itself.
    """
    error = _database_error(error) or error
    lines = str(error).strip().splitlines()
    return redact_credentials(lines[0]) if lines else type(error).__name__


def whole_message(error: BaseException) -> str:
    """Return an error's message without passwords, of which at most `MAX_LINES` lines; its class name without one."""
    lines = redact_credentials(str(error).strip()).splitlines()
    more = [f"... and {len(lines) - MAX_LINES} more lines"] if len(lines) > MAX_LINES else []
    return "\n".join([*lines[:MAX_LINES], *more]) or type(error).__name__


def _database_error(error: BaseException) -> BaseException | None:
    """Return the database's own exception that is the cause of an exception of SQLAlchemy or MLflow."""
    cause: BaseException | None = error
    while cause is not None and type(cause).__module__.partition(".")[0] in ("sqlalchemy", "mlflow"):
        if isinstance(original := getattr(cause, "orig", None), BaseException):
            return original
        cause = cause.__cause__ or cause.__context__
    return None


def kind_and_message(error: BaseException) -> str:
    """Return the class of an error and the first line of its message."""
    return f"{type(error).__name__}: {first_line(error)}"


def param_text(value: Any) -> str:
    """Return a value as the text of a param: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def counted(number: int, singular: str, plural: str = "") -> str:
    """Return a number with what it counts: "1 run", "1,000 runs". The plural has an s, unless it is given."""
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"


def shorten(text: str, length: int) -> str:
    """Return a text with at most `length` characters: a longer one ends with an ellipsis."""
    return text if len(text) <= length else text[: max(0, length - 1)] + "…"


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Map each key to a short name: its last parts, as many as make it unique."""
    short = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        others = [f".{other}" for other in keys if other != key]
        short[key] = next((end for end in ends if not any(other.endswith(f".{end}") for other in others)), key)
    return short


def count(number: int, noun: str) -> str:
    """Return a number with its noun: "1 run", "2 runs"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_mb(size: int) -> str:
    """Format a size in bytes: 1,234.5 MB."""
    return f"{size / 1e6:,.1f} MB"

"""Tables in LaTeX, with the rules of the package booktabs. Imports nothing heavy."""

import re
from collections.abc import Collection, Sequence

from pipelines.runtime.text import escape_control_characters

_SPECIAL = re.compile(r"[\\{}$&#%_^~<>|]")
_COMMANDS = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
_SYMBOLS = {"±": r"$\pm$", "\u00d7": r"$\times$", "\u2212": "$-$"}  # multiplication sign, minus sign


def escape_latex(text: str) -> str:
    """Return text as LaTeX prints it: special characters are escaped, a minus before a number is in math mode."""
    text = escape_control_characters(" ".join(text.split()))
    escaped = _SPECIAL.sub(lambda found: _COMMANDS.get(found[0], f"\\{found[0]}"), text)
    for symbol, command in _SYMBOLS.items():
        escaped = escaped.replace(symbol, command)
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", escaped)


def latex_table(lines: Sequence[Sequence[str]], numbers: Collection[int] = (), comments: Sequence[str] = ()) -> str:
    """Return a `tabular` with the rules of booktabs, which the document has to load.

    Args:
        lines: The cells of the header and of each row.
        numbers: Indices of the columns that are aligned right.
        comments: Lines above the table, for the reader of the source.
    """
    header, *rows = [" & ".join(map(escape_latex, line)) + r" \\" for line in lines]
    alignment = "".join("r" if index in numbers else "l" for index in range(len(lines[0])))
    remarks = [f"% {escape_control_characters(' '.join(comment.split()))}" for comment in comments]
    begin, end = f"\\begin{{tabular}}{{{alignment}}}", r"\end{tabular}"
    return "\n".join([*remarks, begin, r"\toprule", header, r"\midrule", *rows, r"\bottomrule", end]) + "\n"

"""How messages name a file or a folder that is missing."""

from pathlib import Path


def no_such(path: Path, kind: str = "file") -> str:
    """Return that there is no such file or folder; of a relative path also where it was looked for."""
    place = "" if path.is_absolute() else f" ({path.absolute()})"
    return f"{path}: no such {kind}{place}"

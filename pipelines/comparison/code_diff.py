"""What differs between the uncommitted changes and the packages of two runs, from their artifacts."""

import difflib
from pathlib import Path

from pipelines.runtime.errors import UserError
from pipelines.tracking.packages import FILE, parse_packages
from pipelines.tracking.source_code import files_of, patch_name
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import DIFF_TAG, FOLDER_DIFF_TAG, LITLAB_DIFF_TAG, NO_CHANGES, PARENT_RUN_TAG, RESUMED

Files = dict[str, str]  # the part of a patch for each file
_DIFF_TAGS = (DIFF_TAG, LITLAB_DIFF_TAG, FOLDER_DIFF_TAG)
_TAGS = (*_DIFF_TAGS, *(f"{RESUMED}{tag}" for tag in _DIFF_TAGS))


def uncommitted_changes(run: StoredRun) -> Files:
    """Return the uncommitted changes that a run kept, by file; those that a resume found too, marked as such.

    The run of a trial or a seed refers to those of its study or summary run.
    """
    found: Files = {}
    for tag in _TAGS:
        digest = run.tags.get(tag, NO_CHANGES)
        path = None if digest == NO_CHANGES else _artifact(run, patch_name(digest))
        if path is not None:
            mark = " (resumed)" if tag.startswith(RESUMED) else ""
            parts = files_of(path.read_bytes())
            found |= {f"{name}{mark}": part.decode(errors="replace") for name, part in parts.items()}
    return found


def packages(run: StoredRun) -> dict[str, str] | None:
    """Return the versions of the packages that a run, or its parent, was trained with; None if they are unknown."""
    path = _artifact(run, FILE)
    return None if path is None else parse_packages(path.read_text())


def count_lines(part: str) -> str:
    """Return how many lines the changes of a file add and remove, such as "+12 -3"."""
    lines = part.partition("\n@@")[2].splitlines()
    return " ".join(f"{sign}{sum(line.startswith(sign) for line in lines)}" for sign in "+-")


def difference(one: Files, other: Files, names: tuple[str, str]) -> str:
    """Return the changes that only one run has, and how changes of the same file differ, as text.

    Args:
        one: The changes of the first run.
        other: Those of the second run.
        names: How the runs are called.
    """
    parts = []
    for file in sorted(one.keys() | other.keys()):
        if one.get(file) == other.get(file):
            continue
        if file in one and file in other:
            first, second = (f"{file} in {name}" for name in names)
            lines = one[file].splitlines(), other[file].splitlines()
            parts.append("\n".join(difflib.unified_diff(*lines, first, second, lineterm="")))
        else:
            name = names[0] if file in one else names[1]
            parts.append(f"only in {name}:\n{one.get(file) or other[file]}".rstrip("\n"))
    return "\n\n".join(parts)


def _artifact(run: StoredRun, name: str) -> Path | None:
    """Return an artifact of a run, or of the run that it is part of; None if neither has it."""
    try:
        return run.file(name)
    except UserError:
        pass
    try:
        return run.store.find(run.tags[PARENT_RUN_TAG]).file(name) if PARENT_RUN_TAG in run.tags else None
    except UserError:
        return None

"""The installed packages, as lines of a requirements.txt."""

import functools
import json
import re
from importlib.metadata import Distribution, distributions
from pathlib import Path

from pipelines.runtime.files import write_atomically
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.source_code import FOLDER

FILE = f"{FOLDER}/requirements.txt"
_HEADER = re.compile(r"^(Name|Version): *(.+?) *$", re.MULTILINE)


@functools.cache
def installed_packages() -> str:
    """Return the installed packages, sorted. One that was installed from a local folder is a comment."""
    lines: dict[str, str] = {}
    for distribution in distributions():
        name, line = _line(distribution)
        lines.setdefault(name.lower().replace("_", "-"), line)  # the first one on the path is what is imported
    return "".join(f"{line}\n" for name, line in sorted(lines.items()) if name)


def _line(distribution: Distribution) -> tuple[str, str]:
    """Return the name of a package and its line; the name is "" if its metadata are damaged."""
    head = (distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or "").partition("\n\n")[0]
    facts = dict(reversed(_HEADER.findall(head)))  # ten times faster than `distribution.name`
    name, version = facts.get("Name", ""), facts.get("Version", "")
    try:
        source = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        source = {}
    url = redact_credentials(str(source.get("url", "")))
    if vcs := source.get("vcs_info"):
        return name, f"{name} @ {vcs.get('vcs')}+{url}@{vcs.get('commit_id')}"
    return name, f"# {name}=={version} from a local folder" if url.startswith("file:") else f"{name}=={version}"


def save_packages(folder: Path) -> None:
    """Write the list of packages to the folder of a run, unless it has one.

    Raises:
        OSError: For example, the disk is full.
    """
    if not (folder / FILE).exists():
        write_atomically(folder / FILE, installed_packages())


def parse_packages(text: str) -> dict[str, str]:
    """Return the versions in a list of packages, by name."""
    entries = (line.removeprefix("# ").partition(" from a local folder")[0] for line in text.splitlines())
    pairs = (re.split(r"==| @ ", entry, maxsplit=1) for entry in entries)
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}

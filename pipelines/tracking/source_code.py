"""The source code that a run was trained with: commits as tags, uncommitted changes as patches for `git apply`.

Two repositories count: the project's, and litlab's checkout if it is another. A patch has the changes of
tracked files and whole new source files, without binary, large and private ones, which its first lines name.
"""

import hashlib
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from pipelines.runtime.environment import checkout, git, project_folder
from pipelines.runtime.files import write_atomically
from pipelines.runtime.text import escape_control_characters
from pipelines.tracking.tags import (
    COMMIT_TAG,
    DIFF_TAG,
    DIRTY_TAG,
    FOLDER_COMMIT_TAG,
    FOLDER_DIFF_TAG,
    FOLDER_DIRTY_TAG,
    LITLAB_COMMIT_TAG,
    LITLAB_DIFF_TAG,
    LITLAB_DIRTY_TAG,
    NO_CHANGES,
    RESUMED,
    SOURCE_COMMIT_TAG,
)

OFF_VARIABLE = "LITLAB_NO_CODE"  # environment variable: keep commits, but neither patches nor packages
FOLDER = "code"  # of a run's artifacts
MAX_FILE, MAX_PATCH = 200_000, 1_000_000  # bytes
SOURCE_SUFFIXES = (  # of new files that are kept
    *(".py", ".pyi", ".pyx", ".sh", ".yaml", ".yml", ".toml", ".cfg", ".ini"),
    *(".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".rs", ".go", ".jl", ".r", ".sql", ".js", ".ts"),
)
PRIVATE = (  # patterns of names of files that are never kept
    *(".env*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "id_rsa*", "id_ed25519*"),
    *(".netrc", ".pypirc", ".npmrc", "*secret*", "*credential*", "*password*"),
)
_PROJECT, _LITLAB = (COMMIT_TAG, DIRTY_TAG, DIFF_TAG), (LITLAB_COMMIT_TAG, LITLAB_DIRTY_TAG, LITLAB_DIFF_TAG)
_FOLDER = (FOLDER_COMMIT_TAG, FOLDER_DIRTY_TAG, FOLDER_DIFF_TAG)  # of earlier versions: see tags.py
_DIFF = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--no-relative", "--ignore-submodules=dirty")
_PREFIXES = ("--src-prefix=a/", "--dst-prefix=b/", "--unified=3")
_KEY = re.compile(rb"^[+ -]-----BEGIN [A-Z ]*PRIVATE KEY-----\r?$", re.MULTILINE)
_FILE = re.compile(rb"^(?=diff --git )", re.MULTILINE)
_STARTED: list["_Collection"] = []  # at most one, until a run takes it


@dataclass(frozen=True)
class SourceCode:
    """Commits and uncommitted changes.

    Attributes:
        tags: Tags of the run.
        patches: Uncommitted changes, by the name of their artifact.
    """

    tags: dict[str, str] = field(default_factory=dict)
    patches: dict[str, bytes] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the patches to the folder of a run.

        Raises:
            OSError: For example, the disk is full.
        """
        for name, patch in self.patches.items():
            if not (folder / name).exists():
                write_atomically(folder / name, patch)


class _Collection(threading.Thread):
    """Collects the source code while the command imports torch."""

    def __init__(self) -> None:
        super().__init__(name="litlab-code", daemon=True)
        self._code: SourceCode | None = None
        self.start()

    def run(self) -> None:
        self._code = collect()

    def result(self) -> SourceCode:
        """Wait for the result."""
        self.join()
        return collect() if self._code is None else self._code


def start() -> None:
    """Start to collect the source code for the next run of this process, unless it is a further device's."""
    _STARTED[:] = [] if "LOCAL_RANK" in os.environ else [_Collection()]


def stop() -> None:
    """Forget what was started, if no run has taken it."""
    _STARTED.clear()


def current() -> SourceCode:
    """Return the source code as it was when `start` was called, or as it is now."""
    return _STARTED.pop().result() if _STARTED else collect()


def peek() -> SourceCode:
    """Return what `current` will return."""
    return _STARTED[0].result() if _STARTED else collect()


def collect() -> SourceCode:
    """Return the source code as it is now; empty outside of git repositories."""
    tags: dict[str, str] = {}
    patches: dict[str, bytes] = {}
    own = checkout()
    project, litlab = _repository(project_folder()), None if own is None else _repository(own)
    repositories = (project, _PROJECT), (None if litlab == project else litlab, _LITLAB)
    for repository, (commit_tag, dirty_tag, diff_tag) in repositories:
        if repository is None:
            continue
        top, commit = repository
        changed, untracked = _status(top)
        tags |= {commit_tag: commit, dirty_tag: str(bool(changed or untracked)).lower()}
        if is_off():
            continue
        patch = _patch(top, untracked, changed=changed)
        if patch is not None:
            digest = hashlib.sha256(patch).hexdigest()
            tags[diff_tag] = digest if patch else NO_CHANGES
            patches |= {patch_name(digest): patch} if patch else {}
    return SourceCode({**tags, **({SOURCE_COMMIT_TAG: tags[COMMIT_TAG]} if COMMIT_TAG in tags else {})}, patches)


def same_code(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Return whether the tags of two runs tell that they have the same code; False if that is unknown."""
    state = _state(one)
    return state is not None and state == _state(other)


def _state(tags: Mapping[str, str]) -> list[tuple[str | None, str | None]] | None:
    """Return commit and changes of each repository; None if they are not known, or a resume found others."""
    state: list[tuple[str | None, str | None]] = []
    project, litlab = (_FOLDER, _PROJECT) if FOLDER_COMMIT_TAG in tags else (_PROJECT, _LITLAB)
    for commit_tag, dirty_tag, diff_tag in (project, litlab):
        commit, changes = tags.get(commit_tag), tags.get(diff_tag)
        if changes is None and tags.get(dirty_tag) == "false":  # of an earlier version
            changes = NO_CHANGES
        if (commit is not None and changes is None) or {f"{RESUMED}{commit_tag}", f"{RESUMED}{diff_tag}"} & tags.keys():
            return None
        state.append((commit, changes))
    return state if state[0][0] else None


def is_off() -> bool:
    """Return whether neither patches nor packages are to be kept."""
    return bool(os.environ.get(OFF_VARIABLE))


def patch_name(digest: str) -> str:
    """Return the name of the artifact with the uncommitted changes of this digest."""
    return f"{FOLDER}/uncommitted-{digest[:12]}.diff"


def files_of(patch: bytes) -> dict[str, bytes]:
    """Return the part of a patch for each file, by its name."""
    return {_name(part): part for part in _FILE.split(patch) if part.startswith(b"diff --git ")}


def _repository(folder: Path) -> tuple[Path, str] | None:
    """Return the top folder and the commit of the repository that a folder is in; None if there is none."""
    lines = (git(folder, "rev-parse", "--show-toplevel", "HEAD") or b"").decode(errors="surrogateescape").splitlines()
    return (Path(lines[0]), lines[1]) if len(lines) == 2 else None


def _status(top: Path) -> tuple[bool, list[str]]:
    """Return whether tracked files have changed, and the untracked files that git does not ignore."""
    output = git(top, "status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames") or b""
    entries = output.decode(errors="surrogateescape").split("\0")
    untracked = [entry[3:] for entry in entries if entry.startswith("?? ")]
    return any(entry and not entry.startswith("?? ") for entry in entries), untracked


def _patch(top: Path, untracked: Sequence[str], *, changed: bool) -> bytes | None:
    """Return the uncommitted changes; None if git does not tell them in time."""
    settings = ("-c", "core.quotePath=false", "-c", f"core.bigFileThreshold={2 * MAX_PATCH}")
    tracked = git(top, *settings, "diff", "HEAD", *_DIFF, *_PREFIXES) if changed else b""
    if tracked is None:
        return None
    kept, left_out, size = list[bytes](), list[str](), 0
    for name, part in (*files_of(tracked).items(), *_new_files(top, untracked)):
        reason = _reason(name, part)
        if reason is None and size + len(part) > MAX_PATCH:
            reason = f"more than {MAX_PATCH:,} bytes in all"
        if reason is None:
            kept.append(part)
            size += len(part)
        else:
            left_out.append(f"# left out: {_describe(top, name)}: {reason}\n")
    return "".join(left_out).encode(errors="replace") + b"".join(kept)


def _reason(name: str, part: bytes) -> str | None:
    """Return why the changes of a file are left out; None if they are kept."""
    if _is_private(name) or _KEY.search(part):
        return "private"
    if len(part) > MAX_FILE:
        return f"more than {MAX_FILE:,} bytes"
    if re.search(rb"^Binary files .* differ$", part, re.MULTILINE) or b"\0" in part:
        return "binary"
    return None


def _is_private(name: str) -> bool:
    return any(fnmatch(PurePosixPath(name).name.lower(), pattern) for pattern in PRIVATE)


def _describe(top: Path, name: str) -> str:
    """Return a file's name with its size and time, so that patches differ if a file does that they leave out."""
    try:
        about = (top / name).lstat()
    except OSError:
        return f"{escape_control_characters(name)}, deleted"
    return f"{escape_control_characters(name)}, {about.st_size} bytes, time {about.st_mtime_ns}"


def _name(part: bytes) -> str:
    """Return the file of a part of a patch, whose first line names it twice: `diff --git a/NAME b/NAME`."""
    names = part.partition(b"\n")[0].removeprefix(b"diff --git ").decode(errors="surrogateescape")
    return names[len(names) // 2 + 1 :].strip('"').removeprefix("b/")


def _new_files(top: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield each new source file, with its part of a patch; what is too large is yielded without its content."""
    for name in names:
        path = top / name
        if path.suffix.lower() not in SOURCE_SUFFIXES or not name.isprintable() or '"' in name or "\\" in name:
            continue
        try:
            if path.is_symlink() or not path.is_file():
                continue
            about = path.stat()
            content = b" " * (MAX_FILE + 1) if about.st_size > MAX_FILE else path.read_bytes()
        except OSError:
            continue
        yield name, _addition(name, content, executable=bool(about.st_mode & 0o100))


def _addition(name: str, content: bytes, *, executable: bool) -> bytes:
    """Return the part of a patch that adds a file."""
    header = f"diff --git a/{name} b/{name}\nnew file mode {'100755' if executable else '100644'}\n"
    if not content:
        return f"{header}index 0000000..e69de29\n".encode(errors="surrogateescape")
    lines = content.split(b"\n")
    is_complete = lines[-1] == b""
    lines = lines[:-1] if is_complete else lines
    tab = "\t" if " " in name else ""  # as git does: else the name would end at the blank
    header += f"--- /dev/null\n+++ b/{name}{tab}\n@@ -0,0 +1,{len(lines)} @@\n"
    body = b"".join(b"+" + line + b"\n" for line in lines)
    return header.encode(errors="surrogateescape") + body + (b"" if is_complete else b"\\ No newline at end of file\n")

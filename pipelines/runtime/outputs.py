"""Files that a command writes where its user says: it replaces only what litlab has written, never an input."""

import os
from collections.abc import Iterable
from pathlib import Path

from pipelines.runtime.errors import UserError

HEAD_BYTES = 4096  # of the beginning and of the end of an existing file, in which a mark is sought


def check_output(path: Path, *marks: bytes, inputs: Iterable[Path] = (), option: str = "--out") -> None:
    """Check that a file is new, empty, or one that litlab has written.

    What is no regular file, such as /dev/stdout, is not checked.

    Args:
        path: The file.
        marks: Texts of which litlab's file of this kind has one at its beginning or end; none if nothing marks it.
        inputs: Files that the command reads.
        option: What names the file, for the message.

    Raises:
        UserError: The file is one of the inputs, was not written by litlab, or cannot be read.
    """
    if not path.is_file():
        return
    if any(file.exists() and path.samefile(file) for file in inputs):
        raise UserError(f"{option} {path} is one of the inputs; name another file")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            if (size := file.seek(0, os.SEEK_END)) > HEAD_BYTES:
                file.seek(max(HEAD_BYTES, size - HEAD_BYTES))
                head += file.read()
    except OSError as error:
        raise UserError(f"{option} {path}: cannot be written ({error.strerror})") from error
    if head and not any(mark in head for mark in marks):
        what = "litlab did not write it" if marks else "it would be replaced"
        raise UserError(f"{option} {path}: the file exists, and {what}; name another file, or delete this one")

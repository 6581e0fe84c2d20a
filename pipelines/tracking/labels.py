"""What a user writes on a run to find it again: tags, a note and a name. They change nothing in what is trained."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.runtime.errors import UserError
from pipelines.tracking.tags import NAME_TAG, NOTE_TAG, is_reserved

MAX_KEY, MAX_VALUE, MAX_NAME = 250, 5000, 250  # characters that every version of MLflow takes
_KEY = re.compile(r"[\w\-. :/]+")


@dataclass(frozen=True)
class Labels:
    """Tags, note and name of a run.

    Attributes:
        tags: Tags by key.
        note: Description of the run, in Markdown; "" for none.
        name: Name of the run; "" for the default.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    name: str = ""

    @classmethod
    def parse(cls, tags: Sequence[str] = (), note: str | None = None, name: str | None = None) -> "Labels":
        """Return the labels that options give: each tag as KEY=VALUE.

        Raises:
            UserError: A tag has no "=", is one of litlab's or MLflow's own, or a text is too long.
        """
        parsed = dict(map(_parse_tag, tags))
        for option, text, most in (("--note", note, MAX_VALUE), ("--run_name", name, MAX_NAME)):
            if text is not None and not 0 < len(text.strip()) <= most:
                raise UserError(f"{option}: expected 1 to {most} characters, got {len(text.strip())}")
        return cls(parsed, note or "", name or "")

    def as_tags(self) -> dict[str, str]:
        """Return the tags of a run that has these labels; its name is given apart."""
        return {**self.tags, **({NOTE_TAG: self.note} if self.note else {})}

    def as_arguments(self) -> list[str]:
        """Return the labels as options of a command."""
        given = [f"--tag={key}={value}" for key, value in self.tags.items()]
        given += [f"--note={self.note}"] if self.note else []
        return given + ([f"--run_name={self.name}"] if self.name else [])

    def changes_of_reopened(self) -> dict[str, str]:
        """Return the tags that give a run that exists these labels, its name among them."""
        return {**self.as_tags(), **({NAME_TAG: self.name} if self.name else {})}


def _parse_tag(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (equals and key and value):
        raise UserError(f"--tag {text}: write KEY=VALUE, such as --tag purpose=thesis")
    if is_reserved(key):
        hint = "; use --run_name" if key == NAME_TAG else "; use --note" if key == NOTE_TAG else "; choose another key"
        raise UserError(f"--tag {key}: litlab or MLflow sets this tag itself{hint}")
    if not _KEY.fullmatch(key) or len(key) > MAX_KEY:
        allowed = f"letters, digits, spaces and _ - . : /, at most {MAX_KEY} characters"
        raise UserError(f"--tag {key}: a key of a tag has only {allowed}")
    if len(value) > MAX_VALUE:
        raise UserError(f"--tag {key}: the value has {len(value)} characters, at most {MAX_VALUE} are allowed")
    return key, value

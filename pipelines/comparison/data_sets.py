"""Which rows were measured on the same data set, so that others are not ranked with them. Imports nothing heavy."""

from collections import Counter
from collections.abc import Sequence

from pipelines.comparison.columns import format_value
from pipelines.comparison.row import Row
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import DATA_HASH_TAG

DATA_KEY = "data"  # the class of the data module
DIGITS = 8  # of a digest
_Identity = tuple[str, str]  # class path and digest; "" if unknown


def by_data_set(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group rows by the data set that their runs were tested on.

    Runs have the same data set if their test sets have the same digest, or, where one has none, the same class of data.
    Runs of an unknown data set are in a group with the others if these have one data set only.

    Returns:
        The rows by the name of their data set, such as "Digits"; with the digest where several have this name.
    """
    identities = [_identity(row) for row in rows]
    known = list(dict.fromkeys(one for one in identities if one[1]))
    known += [one for one in dict.fromkeys(identities) if one[0] and not one[1] and not _like(one, known)]
    groups: dict[_Identity, list[Row]] = {}
    for identity, row in zip(identities, rows, strict=True):
        alike = _like(identity, known) if any(identity) else known
        groups.setdefault(alike[0] if len(alike) == 1 else identity, []).append(row)
    names = Counter(format_value(name) for name, _ in groups)
    return {_label(*one, unique=names[format_value(one[0])] == 1): group for one, group in groups.items()}


def _identity(row: Row) -> _Identity:
    """Return class and digest of a row's data; of a row that pools several test sets, the class only."""
    classes = {run.configuration.get(DATA_KEY, "") for run in row.runs}
    digests = {test_digest(run) for run in row.runs}
    return " and ".join(sorted(classes)), digests.pop() if len(digests) == 1 else ""


def test_digest(run: StoredRun) -> str:
    """Return the SHA-256 of a run's test set; "" if it recorded none."""
    return run.tags.get(f"{DATA_HASH_TAG}.test", "")


def _like(identity: _Identity, known: Sequence[_Identity]) -> list[_Identity]:
    """Return the known data sets that one may be."""
    name, digest = identity
    if digest:
        return [one for one in known if one[1] == digest][:1]
    return [one for one in known if one[0] == name]


def _label(name: str, digest: str, *, unique: bool) -> str:
    short = format_value(name) or ("" if digest else "unknown data")
    text = f"test set {digest[:DIGITS]}"
    if not short:
        return text
    return short if unique or not digest else f"{short} ({text})"

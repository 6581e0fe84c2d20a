"""Which keys tell rows apart, and how tables name them. Imports nothing heavy.

If rows differ in a class, the arguments of that class have no columns. Those that were given explicitly are shown in
the cell of the class, as in "SGD lr=0.1"; defaults are left out.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from pipelines.comparison.equal_runs import differ
from pipelines.comparison.row import Row
from pipelines.config.identity import prefixes
from pipelines.tracking.tags import DATA_HASH_KEY, EXPERIMENT_KEY

MAX_COLUMNS = 12  # keys that tables show
MAX_VALUE = 60  # characters of a value that tables show
_CLASS = re.compile(r"[a-zA-Z_]\w*(\.\w+)*\.[A-Z]\w*")


def format_value(value: str) -> str:
    """Shorten a value for display: a class without its module, a long number with four digits, a long text in part."""
    if re.fullmatch(r"-?\d+\.\d{5,}(e-?\d+)?", value):
        return f"{float(value):.4g}"
    short = value.rpartition(".")[2] if _CLASS.fullmatch(value) else value
    return short if len(short) <= MAX_VALUE else f"{short[: MAX_VALUE - 20]} ... {short[-15:]}"


def differing_keys(rows: Sequence[Row]) -> list[str]:
    """Return the keys in which rows differ; the digest of the data only if nothing else distinguishes two rows."""
    keys = dict.fromkeys(key for row in rows for key in row.configuration if key != DATA_HASH_KEY)
    differing = [key for key in keys if _differs(key, rows)]
    counts = Counter(tuple(row.value(key) for key in differing) for row in rows)
    return [*differing, DATA_HASH_KEY] if any(count > 1 for count in counts.values()) else differing


def telling_columns(rows: Sequence[Row], differing: Sequence[str]) -> list[str]:
    """Return the keys that distinguish the rows and were given explicitly.

    Left out are those that are constant within each experiment, whose name determines them, and those that come with
    another class.
    """
    columns = list(differing)
    if EXPERIMENT_KEY in differing:
        by_experiment: dict[str, list[Row]] = {}
        for row in rows:
            by_experiment.setdefault(row.value(EXPERIMENT_KEY), []).append(row)
        varying = [key for key in differing if any(_differs(key, group) for group in by_experiment.values())]
        columns = [EXPERIMENT_KEY, *(key for key in varying if key != EXPERIMENT_KEY)]
    classes = folded_keys(columns, rows)
    return [key for key in columns if key not in classes or _is_set(key, rows)]


def most_common(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Return at most MAX_COLUMNS columns, those that most rows set, in the same order."""
    counts = {key: sum(bool(row.value(key)) for row in rows) for key in columns}
    chosen = sorted(columns, key=lambda key: -counts[key])[:MAX_COLUMNS]
    return [key for key in columns if key in chosen]


def folded_keys(columns: Sequence[str], rows: Sequence[Row]) -> dict[str, str]:
    """Return the keys that are shown in the cell of the class around them, which differs too, with that class's key."""
    classes = {key for key in columns if any(_CLASS.fullmatch(row.value(key)) for row in rows)}
    folded = {}
    for key in columns:
        *around, _ = prefixes(key)
        if key not in classes and (found := [start for start in around if start in classes]):
            folded[key] = found[-1]
    return folded


def set_with_classes(rows: Sequence[Row], folded: Mapping[str, str]) -> dict[tuple[str, str], list[str]]:
    """Return the keys that are shown with each class: those that are set in a row with the same class.

    Args:
        rows: All rows.
        folded: See `folded_keys`.

    Returns:
        The keys, by the key of the class and its value.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for class_key in dict.fromkeys(folded.values()):
        by_class: dict[str, list[Row]] = {}
        for row in rows:
            by_class.setdefault(row.value(class_key), []).append(row)
        keys = [key for key, around in folded.items() if around == class_key]
        for value, alike in by_class.items():
            found[class_key, value] = [key for key in keys if _is_set(key, alike, rows)]
    return found


def _differs(key: str, rows: Sequence[Row]) -> bool:
    """Return whether rows differ in a key. One that lacks the key is like those that have it at its default."""
    recorded = [configuration for row in rows for configuration in row.recorded]
    return len({row.value(key) for row in rows}) > 1 and differ(recorded, key)


def _is_set(key: str, rows: Sequence[Row], others: Sequence[Row] = ()) -> bool:
    """Return whether a key is not at its default in one of some rows.

    Of rows that did not record their defaults, it is whether those that have the key differ in it, here or in `others`.
    """
    having = [row for row in rows if row.value(key)]
    if any(not configuration.is_recorded for row in having for configuration in row.recorded):
        return len({row.value(key) for row in (others or rows) if row.value(key)}) > 1
    return any(key not in configuration.optional for row in having for configuration in row.recorded)

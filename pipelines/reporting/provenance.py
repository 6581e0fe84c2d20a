"""Where finished runs come from, as tables: software, machine, code, data and commands."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import COMMAND_TAG, COMMIT_TAG, DATA_HASH_TAG, DIRTY_TAG, HOST_TAG, VERSION_TAG

MISSING = "not recorded"
CODE = (COMMIT_TAG, DIRTY_TAG)
_PREFIXES = ("git.", f"{VERSION_TAG}.", "machine.")  # of the tags that are shown, in this order
_NAMES = {COMMIT_TAG: "git commit", DIRTY_TAG: "uncommitted changes", HOST_TAG: "machine"}
_DIGEST = f"{DATA_HASH_TAG}."
Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Environment:
    """Versions, machine and code of runs.

    Attributes:
        facts: Name and value; where runs differ, each value with its number of runs.
        differing: Names of the facts in which runs differ.
    """

    facts: Pairs
    differing: list[str]


@dataclass(frozen=True)
class Dataset:
    """What some runs were trained on.

    Attributes:
        title: Source of the data.
        facts: Statistics and other facts.
        digests: For each split: its name, number of examples, SHA-256.
        runs: Number of runs.
        missing: What could not be read, and why; "" if nothing.
    """

    title: str
    facts: Pairs
    digests: list[tuple[str, str, str]]
    runs: int
    missing: str


def describe_environment(runs: Sequence[StoredRun]) -> Environment:
    """Collect the software, machine and code that runs recorded."""
    keys = {key for run in runs for key in run.tags if key.startswith(_PREFIXES)} | set(CODE)
    facts, differing = [], []
    for key in sorted(keys, key=lambda key: (_PREFIXES.index(key.partition(".")[0] + "."), key)):
        name = _NAMES.get(key, key.partition(".")[2])
        counts = Counter(run.tags.get(key, MISSING) for run in runs)
        facts.append((name, _format_counts(counts)))
        if len(counts) > 1:
            differing.append(name)
    return Environment(facts, differing)


def _format_counts(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({count} run{'' if count == 1 else 's'})" for value, count in counts.most_common())


def describe_data(runs: Sequence[StoredRun]) -> list[Dataset]:
    """Collect the data sets of runs. Runs with the same source and digests have the same data set."""
    groups: dict[tuple[tuple[str, str], ...], list[StoredRun]] = {}
    for run in runs:
        digests = tuple(sorted((key, value) for key, value in run.tags.items() if key.startswith(_DIGEST)))
        groups.setdefault((("data", run.configuration.get("data", "")), *digests), []).append(run)
    return [_describe_dataset(group) for group in groups.values()]


def _describe_dataset(runs: Sequence[StoredRun]) -> Dataset:
    first = runs[0]
    recorded = {key.removeprefix(_DIGEST): value for key, value in first.tags.items() if key.startswith(_DIGEST)}
    description, missing = _read_description(first)
    sizes = description.pop("sizes", None)
    sizes = sizes if isinstance(sizes, dict) else {}
    source, listed = description.pop("source", None), description.pop("sha256", None)
    digests = recorded or (listed if isinstance(listed, dict) else {})
    splits = [split for split in ("train", "val", "test") if split in digests or split in sizes]
    table = [(split, str(sizes.get(split, MISSING)), str(digests.get(split, MISSING))) for split in splits]
    facts = [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in description.items()]
    title = str(source or first.configuration.get("data") or "data of an unknown source")
    return Dataset(title, facts, table, len(runs), missing)


def _read_description(run: StoredRun) -> tuple[dict[str, object], str]:
    """Return the content of a run's data.json, or why there is none."""
    try:
        content = json.loads(run.file("data.json").read_text())
    except UserError as error:
        return {}, str(error)
    except (OSError, ValueError) as error:
        return {}, f"data.json of run {run.run_id} cannot be read: {error}"
    return (content, "") if isinstance(content, dict) else ({}, f"data.json of run {run.run_id} has no description")


def command_of(tags: Mapping[str, str]) -> str:
    """Return the command that made a run."""
    return redact_credentials(tags.get(COMMAND_TAG, "")) or f"# {MISSING}"

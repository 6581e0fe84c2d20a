"""Where finished runs come from, as tables: software, machine, code, data and commands."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import redact_credentials
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import COMMAND_TAG, COMMIT_TAG, DATA_HASH_KEY, DIRTY_TAG, HOST_TAG

MISSING = "not recorded"
CODE = (COMMIT_TAG, DIRTY_TAG)
_SHOWN = ("git.", "version.", "machine.")
_NAMES = {COMMIT_TAG: "git commit", DIRTY_TAG: "uncommitted changes", HOST_TAG: "machine"}
Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Environment:
    """Versions, machine and code of runs.

    Attributes:
        facts: Name and value; where runs differ, each value with the number of its runs.
        differing: Names of those in which runs differ.
    """

    facts: Pairs
    differing: list[str]


@dataclass(frozen=True)
class Data:
    """What some runs were trained on.

    Attributes:
        title: The source of the data.
        facts: Sizes and statistics.
        digests: Split, number of examples, SHA-256.
        runs: How many runs.
        missing: What could not be read, and why; "" if nothing.
    """

    title: str
    facts: Pairs
    digests: list[tuple[str, str, str]]
    runs: int
    missing: str


def environment(runs: Sequence[StoredRun]) -> Environment:
    """What runs say of the software and the machine that made them."""
    keys = {key for run in runs for key in run.tags if key.startswith(_SHOWN)} | set(CODE)
    facts, differing = [], []
    for key in sorted(keys, key=lambda key: (_SHOWN.index(key.partition(".")[0] + "."), key)):
        name = _NAMES.get(key, key.partition(".")[2])
        counted = Counter(run.tags.get(key, MISSING) for run in runs)
        facts.append((name, _said(counted)))
        if len(counted) > 1:
            differing.append(name)
    return Environment(facts, differing)


def _said(counted: Counter[str]) -> str:
    if len(counted) == 1:
        return next(iter(counted))
    return "; ".join(f"{value} ({_runs(count)})" for value, count in counted.most_common())


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def data(runs: Sequence[StoredRun], store: Store) -> list[Data]:
    """The data sets of runs; runs with the same digests have the same one."""
    groups: dict[tuple[tuple[str, str], ...], list[StoredRun]] = {}
    for run in runs:
        digests = tuple(sorted((key, value) for key, value in run.tags.items() if key.startswith(f"{DATA_HASH_KEY}.")))
        groups.setdefault((("data", run.configuration.get("data", "")), *digests), []).append(run)
    return [_data(group, store) for group in groups.values()]


def _data(runs: Sequence[StoredRun], store: Store) -> Data:
    first = runs[0]
    recorded = {
        key.removeprefix(f"{DATA_HASH_KEY}."): value
        for key, value in first.tags.items()
        if key.startswith(DATA_HASH_KEY)
    }
    card, missing = _card(first, store)
    sizes = card.pop("sizes", None)
    sizes = sizes if isinstance(sizes, dict) else {}
    source, listed = card.pop("source", None), card.pop("sha256", None)
    digests = recorded or (listed if isinstance(listed, dict) else {})
    splits = [split for split in ("train", "val", "test") if split in digests or split in sizes]
    table = [(split, str(sizes.get(split, MISSING)), str(digests.get(split, MISSING))) for split in splits]
    facts = [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in card.items()]
    title = str(source or first.configuration.get("data") or "data of an unknown source")
    return Data(title, facts, table, len(runs), missing)


def _card(run: StoredRun, store: Store) -> tuple[dict[str, object], str]:
    """A run's data.json, or why there is none."""
    try:
        card = json.loads(store.find(run.run_id).file("data.json").read_text())
    except UserError as error:
        return {}, str(error)
    except (OSError, ValueError) as error:
        return {}, f"data.json of run {run.run_id} cannot be read: {error}"
    return (card, "") if isinstance(card, dict) else ({}, f"data.json of run {run.run_id} holds no description")


def command_of(tags: dict[str, str]) -> str:
    """What was typed to make a run."""
    return redact_credentials(tags.get(COMMAND_TAG, "")) or f"# {MISSING}"

"""Where finished runs come from, as tables: software, machine, code, data and commands."""

import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import param_text, redact_credentials
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import (
    COMMAND_TAG,
    COMMIT_TAG,
    DATA_HASH_TAG,
    DIFF_TAG,
    DIRTY_TAG,
    FOLDER_COMMIT_TAG,
    FOLDER_DIFF_TAG,
    FOLDER_DIRTY_TAG,
    HOST_TAG,
    LITLAB_COMMIT_TAG,
    LITLAB_DIFF_TAG,
    LITLAB_DIRTY_TAG,
    VERSION_TAG,
)

MISSING = "not recorded"
_PREFIXES = ("git.", f"{VERSION_TAG}.", "machine.")  # of the tags that are shown, in this order
_NAMES = {
    COMMIT_TAG: "git commit",
    DIRTY_TAG: "uncommitted changes",
    DIFF_TAG: "SHA-256 of these",
    LITLAB_COMMIT_TAG: "commit of litlab",
    LITLAB_DIRTY_TAG: "uncommitted changes of litlab",
    LITLAB_DIFF_TAG: "SHA-256 of those",
    FOLDER_COMMIT_TAG: "commit of the current folder",
    FOLDER_DIRTY_TAG: "uncommitted changes there",
    FOLDER_DIFF_TAG: "SHA-256 of those there",
    HOST_TAG: "machine",
}


def describe_environment(runs: Sequence[StoredRun]) -> dict[str, Any]:
    """Collect the software, machine and code that runs recorded.

    Returns:
        `facts`: name and value; where runs differ, each value with its number of runs. `differing`: the names of the
        facts in which runs differ.
    """
    keys = {key for run in runs for key in run.tags if key.startswith(_PREFIXES)} | {COMMIT_TAG, DIRTY_TAG}
    facts, differing = [], []
    for key in sorted(keys, key=lambda key: (_PREFIXES.index(key.partition(".")[0] + "."), key)):
        name = _NAMES.get(key, key.partition(".")[2])
        counts = Counter(run.tags.get(key, MISSING) for run in runs).most_common()
        if len(counts) > 1:
            differing.append(name)
        values = [f"{value} ({count} run{'' if count == 1 else 's'})" for value, count in counts]
        facts.append((name, "; ".join(values) if len(counts) > 1 else counts[0][0]))
    return {"facts": facts, "differing": differing}


def describe_data(runs: Sequence[StoredRun]) -> list[dict[str, Any]]:
    """Collect the data sets of runs. Runs with the same source and digests have the same data set."""
    groups: dict[Hashable, list[StoredRun]] = {}
    for run in runs:
        group = (run.configuration.get("data", ""), *sorted(run.data_digests.items()))
        groups.setdefault(group, []).append(run)
    return [_describe_dataset(group) for group in groups.values()]


def _describe_dataset(runs: Sequence[StoredRun]) -> dict[str, Any]:
    """Return title, facts, digests (split, number of examples, SHA-256), number of runs, and what is missing."""
    description, missing = _read_description(runs[0])
    source = description.pop("source", None)
    sizes, listed = (_as_dict(description.pop(key, None)) for key in ("sizes", "sha256"))
    recorded = runs[0].data_digests.items()
    digests = {key.removeprefix(f"{DATA_HASH_TAG}."): digest for key, digest in recorded} or listed
    splits = [split for split in ("train", "val", "test") if split in digests or split in sizes]
    return {
        "title": source or runs[0].configuration.get("data") or "data of an unknown source",
        "facts": [(key, param_text(value)) for key, value in description.items()],
        "digests": [(split, sizes.get(split, MISSING), digests.get(split, MISSING)) for split in splits],
        "runs": len(runs),
        "missing": missing,
    }


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read_description(run: StoredRun) -> tuple[dict[str, Any], str]:
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

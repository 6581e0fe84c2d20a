"""What differs between two runs: configuration, data, code, versions, machine and metrics. Imports nothing heavy."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.comparison.code_diff import Files, count_lines, packages, uncommitted_changes
from pipelines.config.experiments import read_yaml
from pipelines.config.identity import PLACE_KEYS, flatten_config, flatten_lists
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import param_text
from pipelines.tracking.existing import existing_store
from pipelines.tracking.measured import ABOUT_RUNS, test_metrics
from pipelines.tracking.run_names import find_run
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import (
    COMMIT_TAG,
    CUDNN_TAG,
    DATA_HASH_TAG,
    DIRTY_TAG,
    FOLDER_COMMIT_TAG,
    FOLDER_DIRTY_TAG,
    GPUS_TAG,
    HOST_TAG,
    LITLAB_COMMIT_TAG,
    LITLAB_DIRTY_TAG,
    MATMUL_TAG,
    PLATFORM_TAG,
    PROCESSOR_TAG,
    RESUMED,
    SELECTED,
    VERSION_TAG,
)

SECTIONS = ("configuration", "data", "code", "versions", "machine", "metrics")
DIGEST_DIGITS = 12
_CODE_TAGS = (
    *(COMMIT_TAG, DIRTY_TAG),
    *(LITLAB_COMMIT_TAG, LITLAB_DIRTY_TAG),
    *(FOLDER_COMMIT_TAG, FOLDER_DIRTY_TAG),
)


@dataclass(frozen=True)
class RunDiff:
    """What differs between two runs.

    Attributes:
        runs: The two runs.
        sections: For each of `SECTIONS`, the keys that differ, with both values; None where a run has no such key. Keys
            of the code are files too, with the lines that their uncommitted changes add and remove.
        changes: The uncommitted changes of each run.
    """

    runs: tuple[StoredRun, StoredRun]
    sections: dict[str, dict[str, tuple[str | None, str | None]]]
    changes: tuple[Files, Files]


def diff_runs(one: str, other: str, *, tracking_uri: str | None = None) -> RunDiff:
    """Compare two runs of any status.

    Args:
        one: A run, as `find_run` takes it.
        other: Another one.
        tracking_uri: By default the project's mlflow.db.

    Raises:
        UserError: There is no such run.
    """
    store = existing_store(tracking_uri)
    runs = find_run(store, one), find_run(store, other)
    changes = uncommitted_changes(runs[0]), uncommitted_changes(runs[1])
    installed = [packages(run) for run in runs]
    sections = []
    configurations = [configuration_of(run) for run in runs]
    if None in configurations:  # a summary run has params only
        configurations = [dict(sorted(run.params.items())) for run in runs]
    for run, configuration, files, versions in zip(runs, configurations, changes, installed, strict=True):
        known = {"versions": versions} if versions and all(installed) else {}
        sections.append({**_sections(run), "configuration": _compared(configuration or {}), **known})
        sections[-1]["code"] |= {name: f"{count_lines(part)} ({_short_digest(part)})" for name, part in files.items()}
    first, second = sections
    return RunDiff(runs, {name: _difference(first[name], second[name]) for name in SECTIONS}, changes)


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:8]


def _difference(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    keys = [*one, *(key for key in other if key not in one)]
    return {key: (one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)}


def _sections(run: StoredRun) -> dict[str, dict[str, str]]:
    tags = run.tags
    digests = {key.removeprefix(f"{DATA_HASH_TAG}."): digest for key, digest in sorted(run.data_digests.items())}
    versions = {key: value for key, value in sorted(tags.items()) if key.startswith(f"{VERSION_TAG}.")}
    return {
        "data": {split: f"sha256 {digest[:DIGEST_DIGITS]}" for split, digest in digests.items()},
        "code": _tags(run, *_CODE_TAGS, *(f"{RESUMED}{tag}" for tag in _CODE_TAGS)),
        "versions": {key.removeprefix(f"{VERSION_TAG}."): value for key, value in versions.items()},
        "machine": _tags(run, HOST_TAG, PLATFORM_TAG, PROCESSOR_TAG, GPUS_TAG, CUDNN_TAG, MATMUL_TAG),
        "metrics": {key: f"{value:.6g}" for key, value in shown_metrics(run).items()},
    }


def _compared(configuration: Mapping[str, str]) -> dict[str, str]:
    """Return a configuration without the keys that change nothing in a run."""
    return {key: value for key, value in configuration.items() if key not in ("description", *PLACE_KEYS)}


def configuration_of(run: StoredRun) -> dict[str, str] | None:
    """Return every key of a run's configuration with its value; None if it has no config.yaml."""
    try:
        config: dict[str, Any] = read_yaml(run.file("config.yaml"))
    except UserError:
        return None
    return {key: param_text(value) for key, value in flatten_lists(flatten_config(config)).items()}


def shown_metrics(run: StoredRun) -> dict[str, float]:
    """Return the metrics at the selected epoch, those of the test, and what is known of the training as a whole."""
    shown = {key: value for key, value in sorted(run.metrics.items()) if "_ci95_" not in key}  # of a summary
    selected = {key: value for key, value in shown.items() if key.startswith(f"{SELECTED}/")}
    about = {key: run.metrics[key] for key in ABOUT_RUNS if key in run.metrics}
    return {**selected, **test_metrics(shown, run.tags), **about}


def _tags(run: StoredRun, *names: str) -> dict[str, str]:
    return {name: run.tags[name] for name in names if name in run.tags}

"""Finds the runs of one configuration: by the hash that they recorded, or, of another version, by what it stands for.

Imports neither torch nor Lightning.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from pipelines.config.identity import Defaults, same_config
from pipelines.runtime.errors import UserError
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import CONFIG_HASH_TAG


class ConfigMatcher:
    """Tells which runs have a configuration; see `identity.same_config`.

    Each hash that differs is looked into once: the configuration of one run that recorded it is read.

    Args:
        recorded_hash: The hash that runs of this version record.
        config: The resolved configuration.
        defaults: See `defaults.config_defaults`.
    """

    def __init__(self, recorded_hash: str, config: Mapping[str, Any], defaults: Defaults) -> None:
        self._config, self._defaults = config, defaults
        self._matches = {recorded_hash: True}

    def matches(self, run: StoredRun) -> bool:
        """Return whether a run, or the runs that it summarises, have the configuration."""
        recorded_hash = run.tags.get(CONFIG_HASH_TAG, "")
        if recorded_hash not in self._matches:
            saved = saved_config(run)
            self._matches[recorded_hash] = saved is not None and same_config(saved, self._config, self._defaults)
        return self._matches[recorded_hash]


def saved_config(run: StoredRun) -> dict[str, Any] | None:
    """Return the configuration of a run, or of a run with the same hash that it summarises; None if none was saved."""
    if (config := _read(run)) is not None:
        return config
    children = run.store.children(run.run_id)
    same = [child for child in children if child.tags.get(CONFIG_HASH_TAG) == run.tags.get(CONFIG_HASH_TAG)]
    return next((config for config in map(_read, same) if config is not None), None)


def _read(run: StoredRun) -> dict[str, Any] | None:
    try:
        config = yaml.safe_load(run.file("config.yaml").read_text())
    except (UserError, OSError, yaml.YAMLError):
        return None
    return config if isinstance(config, dict) else None

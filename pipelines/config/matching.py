"""Finds the runs of one configuration: by the hash that they recorded, or, of another version, by what it stands for.

Imports neither torch nor Lightning.
"""

from collections.abc import Callable, Mapping
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
        read: Returns the configurations that a run stands for.
    """

    def __init__(
        self,
        recorded_hash: str,
        config: Mapping[str, Any],
        defaults: Defaults,
        read: Callable[[StoredRun], list[dict[str, Any]]] | None = None,
    ) -> None:
        self._config, self._defaults, self._read = config, defaults, read or saved_configs
        self._matches = {recorded_hash: True}

    def matches(self, run: StoredRun) -> bool:
        """Return whether a run, or the runs that it summarises, have the configuration."""
        recorded_hash = run.tags.get(CONFIG_HASH_TAG, "")
        if recorded_hash not in self._matches:
            saved = self._read(run)
            same = [same_config(config, self._config, self._defaults) for config in saved]
            self._matches[recorded_hash] = bool(same) and all(same)
        return self._matches[recorded_hash]


def saved_configs(run: StoredRun) -> list[dict[str, Any]]:
    """Return the configuration that a run saved, or that of each hash among the runs that it summarises."""
    if config := saved_config(run):
        return [config]
    configs: dict[str, dict[str, Any]] = {}
    for child in run.store.children(run.run_id):
        child_hash = child.tags.get(CONFIG_HASH_TAG, "")
        if child_hash not in configs and (config := saved_config(child)):
            configs[child_hash] = config
    return list(configs.values())


def saved_config(run: StoredRun) -> dict[str, Any] | None:
    """Return the configuration that a run saved, if it did."""
    try:
        config = yaml.safe_load(run.file("config.yaml").read_text())
    except (UserError, OSError, yaml.YAMLError):
        return None
    return config if isinstance(config, dict) else None

"""Find runs with a given configuration: by its recorded hash, or for other versions by comparing configurations.

Imports neither torch nor Lightning.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import yaml

from pipelines.config.identity import NOT_HASHED, Defaults, flatten_config, same_config
from pipelines.runtime.class_paths import with_old_class_paths
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import param_text
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import CONFIG_HASH_TAG


class ConfigMatcher:
    """Tells which runs have a configuration; see `identity.same_config`.

    For each other hash, the configuration of one run that recorded it is read once.

    Args:
        recorded_hash: The hash that runs of this version record.
        config: The resolved configuration.
        defaults: Returns what `defaults.config_defaults` does; called only if a configuration is read.
        read: Returns the configurations that a run stands for; see `saved_configs`.
    """

    def __init__(
        self,
        recorded_hash: str,
        config: Mapping[str, Any],
        defaults: Callable[[], Defaults],
        read: Callable[[StoredRun], list[dict[str, Any]]] | None = None,
    ) -> None:
        self._config, self._defaults, self._read = config, cache(defaults), read or saved_configs
        flat = flatten_config(with_old_class_paths(config))
        self._params = {  # those that a run has if they are not at a default; lists may hold classes with new keys
            key: param_text(value)
            for key, value in flat.items()
            if key not in NOT_HASHED and value is not None and not isinstance(value, list)
        }
        self._matches = {recorded_hash: True}

    def matches(self, run: StoredRun) -> bool:
        """Return whether a run, or the runs that it summarises, have the configuration."""
        recorded = run.tags.get(CONFIG_HASH_TAG)
        if recorded is None:
            return False
        if recorded not in self._matches:
            agrees = all(self._params.get(key, text) == text for key, text in run.configuration.items())
            saved = self._read(run) if agrees else []  # reads a file
            same = (same_config(config, self._config, self._defaults()) for config in saved)
            self._matches[recorded] = bool(saved) and all(same)
        return self._matches[recorded]


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

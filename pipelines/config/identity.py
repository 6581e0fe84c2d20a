"""Which configurations are the same: flat keys, the hash of a configuration, and what differs between two.

Imports neither torch nor Lightning.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

PLACE_KEYS = ("data.data_dir", "trainer.enable_progress_bar")  # change nothing in a run
NOT_HASHED = ("seed_everything", "name", "description", *PLACE_KEYS)  # what runs of one configuration may differ in


def flatten_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted keys as on the command line: `class_path` is the section's value, `init_args` is left out."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = prefix if key in ("class_path", "init_args") else f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict):
            flat |= flatten_config(value, name)
        else:
            flat[name] = value
    return flat


def config_hash(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a resolved configuration, equal for runs that differ only in seed, name and place."""
    flat = {key: value for key, value in flatten_config(config).items() if key not in NOT_HASHED}
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()


def changed_values(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the flat keys in which two resolved configurations differ, with both values; None where a key is missing.

    Keys that change nothing in a run, such as the folder of the data, are ignored.
    """
    before, now = flatten_config(recorded), flatten_config(current)
    keys = sorted(key for key in before | now if key not in PLACE_KEYS)
    return {key: (before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)}

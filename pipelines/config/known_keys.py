"""What a run records of the keys that its version knew, so that `compare` needs neither torch nor the run's classes.

A run's params leave out keys that are None and Trainer's own defaults. This record says which keys stand at the default
of their class, and which are None. Runs of 455f4d7 and earlier have none.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.config.identity import NOT_HASHED, Defaults, flat_keys, keys_at_default
from pipelines.tracking.tags import KNOWN_KEYS_TAG

_TAG_LENGTH = 4000  # a longer record goes into several tags; MLflow takes 8000, its earlier versions 5000


@dataclass(frozen=True)
class KnownKeys:
    """Flat keys, grouped by whether they have their default value.

    Keys of Trainer itself are not among them: a param says where they differ.

    Attributes:
        default: Not None, and the default of the class.
        none: None, which is the default.
        set_none: None, which is not the default.
    """

    default: list[str]
    none: list[str]
    set_none: list[str]

    def tags(self) -> dict[str, str]:
        """Return the tags of a run that record it."""
        text = json.dumps(asdict(self), separators=(",", ":"))
        parts = [text[start : start + _TAG_LENGTH] for start in range(0, len(text), _TAG_LENGTH)]
        return {f"{KNOWN_KEYS_TAG}.{number}": part for number, part in enumerate(parts)}

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> "KnownKeys | None":
        """Return what a run recorded; None if it did not."""
        parts: list[str] = []
        while part := tags.get(f"{KNOWN_KEYS_TAG}.{len(parts)}"):
            parts.append(part)
        try:
            return cls(**json.loads("".join(parts))) if parts else None
        except (ValueError, TypeError):  # of a later version
            return None


def known_keys(config: Mapping[str, Any], defaults: Defaults) -> KnownKeys:
    """Return the keys of a resolved configuration, grouped by whether they have their default value.

    Args:
        config: The configuration.
        defaults: See `defaults.config_defaults`.
    """
    trainer = {key for key in defaults.get("", {}) if key.startswith("trainer.")}
    left_out = {*NOT_HASHED, *trainer, "trainer"}
    at_default = [key for key in keys_at_default(config, defaults) if key not in left_out]
    none = {key for key, value in flat_keys(config).items() if value is None and key not in left_out}
    return KnownKeys(
        default=[key for key in at_default if key not in none],
        none=[key for key in at_default if key in none],
        set_none=sorted(none.difference(at_default)),
    )

"""Which params of a run change no result, so that runs that differ in them are compared as equal."""

import json
from collections.abc import Mapping
from typing import Any

from pipelines.tracking.tags import CALLBACKS_PARAM, NOT_COMPARED, PASSIVE_CALLBACKS


def without_passive(params: Mapping[str, str]) -> dict[str, str]:
    """Return the params of a run without the seed and what changes no result, such as a profiler.

    Of the callbacks, those of `PASSIVE_CALLBACKS` are left out; all others may change the training.
    """
    kept = {key: text for key, text in params.items() if key not in NOT_COMPARED}
    callbacks = class_list(kept.get(CALLBACKS_PARAM, ""))
    active = [callback for callback in callbacks if not _is_passive(str(callback["class_path"]))]
    if len(active) == len(callbacks):
        return kept
    del kept[CALLBACKS_PARAM]
    return {**kept, **({CALLBACKS_PARAM: json.dumps(active)} if active else {})}


def class_list(text: str) -> list[dict[str, Any]]:
    """Return the list of classes with their arguments that a param's text stands for; an empty list for other texts."""
    if not (text.startswith("[") and '"class_path"' in text):
        return []
    try:
        classes = json.loads(text)
    except ValueError:
        return []
    return classes if all(isinstance(one, dict) and "class_path" in one for one in classes) else []


def _is_passive(class_path: str) -> bool:
    package, _, name = class_path.rpartition(".")
    return name in PASSIVE_CALLBACKS and package.partition(".")[0] in ("lightning", "pytorch_lightning", "")

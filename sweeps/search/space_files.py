"""Search spaces as YAML files: the project's in spaces/, those that come with litlab, and any other file."""

import dataclasses
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pipelines.config.experiments import read_yaml
from pipelines.config.named_files import named_files
from pipelines.runtime.class_paths import with_old_class_paths
from pipelines.runtime.errors import UserError
from sweeps.search.ranges import parse_numbers
from sweeps.search.space import Space, Values, split_keys

FOLDER = Path(__file__).parents[1] / "spaces"
_TIMES = ("timeout", "trial_timeout")
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def space_names() -> list[str]:
    """Return the names of the project's spaces and of those that come with litlab, sorted."""
    return [*named_files("spaces", FOLDER)]


def read_space(name: str, overrides: Mapping[str, Any]) -> Space:
    """Read one of `space_names` or a YAML file; the overrides replace its values.

    Raises:
        UserError: There is no such file, or a value is wrong; the message names file and key.
    """
    path = _find(name)
    content = read_yaml(path, "experiment, space, trials ...")
    known = {field.name for field in dataclasses.fields(Space) if field.init} - {"name"}
    for key in content:
        if key not in known:
            suggestions = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {suggestions[0]}? " if suggestions else ""
            raise UserError(f"{path}: unknown key {key}: {hint}(a space has {', '.join(sorted(known))})")
    for key in ("experiment", "space"):
        if not content.get(key):
            raise UserError(f"{path}: {key} is required")
    try:
        space = make_space(path.stem, {**content, **overrides})
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    object.__setattr__(space, "file", str(path))
    return space


def make_space(name: str, settings: Mapping[str, Any]) -> Space:
    """Return a space of settings as a YAML file has them.

    Raises:
        UserError: A value is wrong.
    """
    return Space(name=name, **with_old_class_paths(_normalize(dict(settings))))


def _find(name: str) -> Path:
    if found := named_files("spaces", FOLDER).get(name):
        return found
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise UserError(f"{path}: no such file")
    suggestions = get_close_matches(name, space_names(), n=1, cutoff=0.4)
    hint = f"; did you mean {suggestions[0]}?" if suggestions else "."
    raise UserError(
        f"there is no space {name!r}{hint} Available spaces: {', '.join(space_names())}; or give a YAML file"
    )


def _normalize(content: Values) -> Values:
    """Convert durations to seconds, number-like text to numbers, and keys to the form of a flat configuration."""
    times = {key: parse_duration(content[key], key) for key in _TIMES if content.get(key) is not None}
    if not isinstance(content["space"], dict):
        raise UserError("space: expected keys of the experiment, each with a range or a list of choices")
    if not isinstance(content.get("set", {}), dict):
        raise UserError("set: expected keys of the experiment and their values")
    space = {normalize_key(name): parse_numbers(values) for name, values in content["space"].items()}
    fixed = {normalize_key(key): value for key, value in content.get("set", {}).items()}
    keys = [*fixed, *(key for name in content["space"] for key in split_keys(normalize_key(name)))]
    for key in keys:
        if not key:
            raise UserError("space: a key is empty")
        if keys.count(key) > 1:
            raise UserError(f"space: {key} is given twice, in space or in set")
    return {**content, **times, "set": fixed, "space": space}


def normalize_key(name: object) -> str:
    """Drop the `init_args` that jsonargparse accepts in a key, as `flatten_config` does."""
    return ", ".join(key.strip().replace(".init_args.", ".") for key in str(name).split(","))


def parse_duration(value: Any, key: str) -> float:
    """Return the seconds of "90", "45s", "30m", "2h" or "1h30m".

    Raises:
        UserError: It is not a duration, or not above 0.
    """
    text = str(value).replace(" ", "")
    parts = re.findall(r"(\d+(?:\.\d+)?)(min|[smhd]?)", text)
    seconds = sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or seconds <= 0:
        raise UserError(f"{key} {value!r}: expected a time above 0, such as 90s, 30m, 2h or 1h30m")
    return seconds

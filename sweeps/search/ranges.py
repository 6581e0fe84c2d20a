"""Values of one searched key: a range, `{low, high, log, step}`, or a list of choices."""

import json
import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pipelines.runtime.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

RANGE_KEYS = ("low", "high", "log", "step")


def check_values(name: str, values: Any, *, grid: bool) -> None:
    """Check a range or a list of choices, as far as that is possible without the experiment.

    Args:
        name: The searched key, for the message.
        values: The range or the choices.
        grid: Whether the sampler is grid, which takes choices only.

    Raises:
        UserError: Optuna could not sample from it, or a grid cannot list it.
    """
    if isinstance(values, list):
        if not values:
            raise UserError(f"space: {name}: the list of choices is empty")
        _check_choices(name, values)
        return
    if not isinstance(values, dict) or not {"low", "high"} <= set(values) <= set(RANGE_KEYS):
        raise UserError(f"space: {name}: expected a list of choices, or low and high (and log, step), got {values!r}")
    if grid:
        raise UserError(f"space: {name}: a grid needs a list of choices")
    for key in ("low", "high", "step"):
        value = values.get(key)
        if value is None and key == "step":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"space: {name}: {key} is {value!r}; it must be a number")
    _check_range(name, **values)


def _check_range(name: str, low: float, high: float, log: bool = False, step: float | None = None) -> None:
    if low >= high:
        raise UserError(f"space: {name}: the range is empty: low {low} is not below high {high}")
    if not isinstance(log, bool):
        raise UserError(f"space: {name}: log is {log!r}; it must be true or false")
    if log and (low <= 0 or step is not None):
        raise UserError(f"space: {name}: with log, low must be above 0 and step is not allowed")
    if step is not None and not 0 < step <= high - low:
        raise UserError(f"space: {name}: step {step} does not fit between {low} and {high}")
    if step is not None and (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)):
        raise UserError(f"space: {name}: steps of {step} do not lead from {low} to {high}")


def _check_choices(name: str, values: list[Any]) -> None:
    for value in values:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise UserError(f"space: {name}: {value!r} cannot be a choice") from None
    choices = encode_choices(values)
    for index, value in enumerate(choices):
        if value in choices[:index]:  # Optuna compares with ==, for which 1, 1.0 and true are the same
            raise UserError(f"space: {name}: choice {value!r} is listed twice")


def end_points(values: Any) -> list[Any]:
    """Return all choices, or both ends of a range and its first step; floats if any of them is a float."""
    if isinstance(values, list):
        return encode_choices(values)
    low, high, step = values["low"], values["high"], values.get("step")
    points = [low, high] if step is None else [low, low + step, high]
    is_float = any(isinstance(number, float) for number in (low, high, step))
    return [float(point) for point in points] if is_float else points


def distribution(values: Any, default: Any) -> "BaseDistribution":
    """Return Optuna's distribution.

    Args:
        values: The range or the choices.
        default: The experiment's own value. If it is a float, whole numbers are the ends of a range of floats.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, list):
        return CategoricalDistribution(encode_choices(values))
    low, high, step, log = (values.get(key) for key in ("low", "high", "step", "log"))
    is_whole = all(isinstance(number, int) for number in (low, high, step if step is not None else 1))
    if is_whole and not isinstance(default, float):
        return IntDistribution(low, high, log=bool(log), step=step or 1)
    return FloatDistribution(low, high, log=bool(log), step=step)


def encode_choices(values: list[Any]) -> list[Any]:
    """Return choices as Optuna takes them."""
    return [encode(value) for value in values]


def encode(value: Any) -> Any:
    """Turn a value of the experiment into one of Optuna's choices: a list or a mapping becomes JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def decode(value: Any) -> Any:
    """Turn one of Optuna's choices into a value of the experiment."""
    try:
        return json.loads(value) if isinstance(value, str) and value.startswith(("[", "{")) else value
    except ValueError:  # text that only starts like JSON
        return value


def parse_numbers(values: Any) -> Any:
    """Convert text like "1e-4", which YAML 1.1 does not read as a number, in a range or a list of choices."""
    if isinstance(values, dict):
        return {key: _parse_number(value) for key, value in values.items()}
    return [_parse_number(value) for value in values] if isinstance(values, list) else values


def _parse_number(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", value):
        return float(value)
    return value

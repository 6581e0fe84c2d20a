"""Values of one searched key: a range, `{low, high, log, step}`, or a list of choices."""

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pipelines.runtime.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

RANGE_KEYS = ("low", "high", "log", "step")


def check_values(name: str, values: Any, *, grid: bool) -> None:
    """Check the values of a searched key, as far as that is possible without the experiment.

    Raises:
        UserError: Optuna could not sample from them, or a grid, which takes choices only, cannot list them.
    """
    if isinstance(values, list):
        error = _choices_error(values)
    elif not isinstance(values, dict) or not {"low", "high"} <= set(values) <= set(RANGE_KEYS):
        error = f"expected a list of choices, or low and high (and log, step), got {values!r}"
    elif grid:
        error = "a grid needs a list of choices"
    else:
        error = _range_error(**values)
    if error:
        raise UserError(f"space: {name}: {error}")


def _range_error(low: Any, high: Any, log: Any = False, step: Any = None) -> str:
    """Return what is wrong with a range, or ""."""
    for key, value in {"low": low, "high": high, "step": 1 if step is None else step}.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"{key} is {value!r}; it must be a number"
    if low >= high:
        return f"the range is empty: low {low} is not below high {high}"
    if not isinstance(log, bool):
        return f"log is {log!r}; it must be true or false"
    if log and (low <= 0 or step is not None):
        return "with log, low must be above 0 and step is not allowed"
    if step is not None and not 0 < step <= high - low:
        return f"step {step} does not fit between {low} and {high}"
    if step is not None and (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)):
        return f"steps of {step} do not lead from {low} to {high}"
    return ""


def _choices_error(values: list[Any]) -> str:
    """Return what is wrong with a list of choices, or ""."""
    if not values:
        return "the list of choices is empty"
    for value in values:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            return f"{value!r} cannot be a choice"
    choices = encode_choices(values)
    for index, value in enumerate(choices):
        if value in choices[:index]:  # Optuna compares with ==, for which 1, 1.0 and true are the same
            return f"choice {value!r} is listed twice"
    return ""


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


def point_error(params: Mapping[str, Any], distributions: "Mapping[str, BaseDistribution]") -> str:
    """Return why a point, which may lack keys, is not in a space, or ""."""
    from optuna.trial import TrialState, create_trial

    for key, value in params.items():
        if (known := distributions.get(key)) is None:
            return f"{key} is not searched; the keys are {'; '.join(distributions)}"
        try:
            create_trial(state=TrialState.FAIL, params={key: value}, distributions={key: known})  # checks the value
        except (ValueError, TypeError):
            return f"{key} is {value!r}; it must be {_describe(known)}"
    return ""


def _describe(known: Any) -> str:
    """Return the values of one of Optuna's distributions as text."""
    if hasattr(known, "choices"):
        return f"one of {', '.join(map(repr, known.choices))}"
    kind = "whole number" if isinstance(known.low, int) else "number"
    step = "" if known.step in (None, 1) else f" in steps of {known.step}"
    return f"a {kind} from {known.low} to {known.high}{step}"


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

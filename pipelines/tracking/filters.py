"""Filters of runs: MLflow's filter language, in which params can also be compared as numbers."""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

FINISHED = "attributes.status = 'FINISHED'"
_QUOTED = re.compile(r"`[^`]*`|'[^']*'|\"[^\"]*\"")
_KEYS = re.compile(rf"{_QUOTED.pattern}|\b((?:param(?:eter)?|metric|tag)s?\.)([\w./-]+)")
_AND = re.compile(r"\s+and\s+", re.IGNORECASE)
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_NUMERIC = re.compile(rf"param(?:eter)?s?\.([`\"]?)([^`\"]+?)\1\s*(<=|>=|!=|==|=|<|>)\s*({_NUMBER})")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True)
class NumericCondition:
    """A condition on a param that is a number, such as `params.model.dropout > 0.2`.

    A run whose param is missing or is no number does not match.
    """

    key: str
    comparison: str
    value: float

    def matches(self, params: Mapping[str, str]) -> bool:
        """Return whether a run with these params matches."""
        try:
            return _OPERATORS[self.comparison](float(params[self.key]), self.value)
        except (KeyError, ValueError):
            return False


@dataclass(frozen=True)
class RunFilter:
    """A filter of runs in two parts: what MLflow evaluates, and what it refuses, comparisons of params with numbers.

    Attributes:
        mlflow: Filter for MLflow, with the backticks that it needs around keys; "" if there is none.
        conditions: What remains.
    """

    mlflow: str = ""
    conditions: tuple[NumericCondition, ...] = ()

    def matches(self, params: Mapping[str, str]) -> bool:
        """Return whether a run that MLflow has found matches the remaining conditions."""
        return all(condition.matches(params) for condition in self.conditions)


def parse_filter(*filters: str) -> RunFilter:
    """Return a filter for runs that match all of these filters; empty ones match all runs."""
    parts = [part for text in filters if text.strip() for part in _split(text.strip())]
    numeric = [_NUMERIC.fullmatch(part) for part in parts]
    conditions = [NumericCondition(found[2], found[3], float(found[4])) for found in numeric if found]
    others = [_KEYS.sub(_with_backticks, part) for part, found in zip(parts, numeric, strict=True) if not found]
    return RunFilter(" and ".join(others), tuple(conditions))


def quoted(value: str) -> str:
    """Return a value in the quotes that MLflow's filters need."""
    return f'"{value}"' if "'" in value else f"'{value}'"


def _split(text: str) -> list[str]:
    """Split a filter at each "and" that is not in quotes."""
    masked = _QUOTED.sub(lambda match: "_" * len(match[0]), text)
    separators = list(_AND.finditer(masked))
    starts = [0, *(found.end() for found in separators)]
    ends = [*(found.start() for found in separators), len(text)]
    return [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]


def _with_backticks(match: re.Match[str]) -> str:
    kind, key = match.groups()
    return f"{kind}`{key}`" if kind else match[0]

"""A space: an experiment, the keys to vary and how, what to optimise, and how much to spend. One YAML file each."""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pipelines.config.experiments import read_yaml
from pipelines.runtime.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FOLDER = Path(__file__).parents[1] / "spaces"
Direction = Literal["maximize", "minimize"]
Keep = Literal["best", "all"]
Values = dict[str, Any]
NOT_SEARCHED = {
    "seed_everything": "a study uses seeds 0, 1, ...; --seeds says how many",
    "name": "a study's runs go to the MLflow experiment STUDY-sweep; --study names it",
    "description": "it changes nothing",
    "tracking_uri": "all runs of a study go to one place; --tracking_uri says which",
}
_RANGE = ("low", "high", "log", "step")
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


@dataclasses.dataclass(frozen=True)
class Space:
    """What a study searches, and how.

    Attributes:
        name: Of the file; the study's name unless another is given.
        experiment: Name or path of the experiment.
        space: Dotted keys of the experiment, each with `{low, high, log, step}` or a list of choices. Keys that share
            their value stand together, with commas between them.
        description: One line.
        metric: What a trial is judged by, at the epoch that its run selects: a validation metric.
        direction: Whether more or less of it is better.
        sampler: "grid", or the name of one of Optuna's samplers, alone or with arguments (`{name: tpe, ...}`).
        pruner: "none", or the name of one of Optuna's pruners, likewise.
        trials: How many in all; None for a grid means all of it.
        timeout: Seconds after which no trial is begun.
        trial_timeout: Seconds after which a trial is ended, and failed.
        seeds: Runs of each configuration, with seeds 0, 1, ...; a trial's value is their mean.
        confirm: Runs of the best configuration on fresh seeds after the search, the only ones that are tested.
        keep: Whether the checkpoints of the best trial or of all are kept.
        set: Keys of the experiment that have another value in all trials.
    """

    name: str
    experiment: str
    space: dict[str, Any]
    description: str = ""
    metric: str = "val/acc"
    direction: Direction = "maximize"
    sampler: str | dict[str, Any] = "tpe"
    pruner: str | dict[str, Any] = "none"
    trials: int | None = None
    timeout: float | None = None
    trial_timeout: float | None = None
    seeds: int = 1
    confirm: int = 3
    keep: Keep = "best"
    set: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def is_grid(self) -> bool:
        return name_of(self.sampler) == "grid"

    @property
    def total(self) -> int:
        """How many trials there are to be, in all."""
        size = math.prod(len(choices) for choices in self.space.values()) if self.is_grid else math.inf
        return int(min(size, math.inf if self.trials is None else self.trials))

    def grid(self) -> list[Values]:
        """Every point, the last key varying fastest, as Optuna knows it."""
        names = list(self.space)
        return [dict(zip(names, point, strict=True)) for point in product(*map(_choices, self.space.values()))]

    def distributions(self, usual: Mapping[str, Any]) -> "dict[str, BaseDistribution]":
        """Optuna's distributions.

        Args:
            usual: The experiment's own value of each key; where it is a float, whole numbers are the ends of a real
                range.
        """
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        made: dict[str, BaseDistribution] = {}
        for name, wanted in self.space.items():
            if isinstance(wanted, list):
                made[name] = CategoricalDistribution(_choices(wanted))
                continue
            low, high, step, log = (wanted.get(key) for key in ("low", "high", "step", "log"))
            whole = all(isinstance(number, int) for number in (low, high, step if step is not None else 1))
            if whole and not isinstance(usual.get(keys_of(name)[0]), float):
                made[name] = IntDistribution(low, high, log=bool(log), step=step or 1)
            else:
                made[name] = FloatDistribution(low, high, log=bool(log), step=step)
        return made

    def settings(self, params: Mapping[str, Any]) -> Values:
        """The experiment's keys and values, of a trial's parameters; a class before its arguments."""
        values = {key: decoded(value) for name, value in params.items() for key in keys_of(name)}
        return dict(sorted(values.items(), key=lambda item: item[0].count(".")))

    def fixed(self) -> Values:
        """What is the same in all trials; a class before its arguments."""
        return dict(sorted(self.set.items(), key=lambda item: item[0].count(".")))

    def ends(self) -> list[Values]:
        """For each key, the values that a search can be sure to be able to take: all choices, or both ends."""
        wanted = {name: _choices(w) if isinstance(w, list) else _ends(w) for name, w in self.space.items()}
        return [{name: value} for name, values in wanted.items() for value in values]


def _ends(wanted: Mapping[str, Any]) -> list[Any]:
    """Both ends of a range, and one step from the lower one: real numbers if one of them is."""
    low, high, step = wanted["low"], wanted["high"], wanted.get("step")
    values = [low, high] if step is None else [low, low + step, high]
    return [float(value) for value in values] if any(isinstance(n, float) for n in (low, high, step)) else values


def names() -> list[str]:
    """The spaces that come with litlab."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read(name: str, changes: Mapping[str, Any]) -> Space:
    """A space by name or path.

    Args:
        name: One of `names`, or a YAML file.
        changes: Keys of the file that have another value.

    Raises:
        UserError: There is no such file, or something in it is wrong; the message names file and key.
    """
    path = _find(name)
    content = read_yaml(path, "experiment, space, trials ...")
    known = {field.name for field in dataclasses.fields(Space)} - {"name"}
    for key in content:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UserError(f"{path}: unknown key {key}: {hint}(a space has {', '.join(sorted(known))})")
    for key in ("experiment", "space"):
        if not content.get(key):
            raise UserError(f"{path}: {key} is required")
    try:
        return Space(name=path.stem, **{**content, **changes, **_plain(content, changes)})
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _find(name: str) -> Path:
    if name in names():
        return FOLDER / f"{name}.yaml"
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise UserError(f"{path}: no such file")
    near = get_close_matches(name, names(), n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"there is no space {name!r}{hint} They are {', '.join(names())}; or name a YAML file")


def _plain(content: Mapping[str, Any], changes: Mapping[str, Any]) -> Values:
    """Durations as seconds, and numbers as numbers: YAML 1.1 takes 1e-4 for a text."""
    both = {**content, **changes}
    times = {key: duration(both[key], key) for key in ("timeout", "trial_timeout") if both.get(key) is not None}
    if not isinstance(both["space"], dict):
        raise UserError("space: expected keys of the experiment, each with a range or a list of choices")
    if not isinstance(both.get("set", {}), dict):
        raise UserError("set: expected keys of the experiment and their values")
    fixed = {_tidy(key): value for key, value in both.get("set", {}).items()}
    keys = [*fixed, *(key for name in both["space"] for key in keys_of(_tidy(name)))]
    for key in keys:
        if not key:
            raise UserError("space: a key is empty")
        if keys.count(key) > 1:
            raise UserError(f"space: {key} is there twice, of which one may be in set")
    return {**times, "set": fixed, "space": {_tidy(key): _numbers(wanted) for key, wanted in both["space"].items()}}


def _tidy(name: object) -> str:
    """The keys as `flatten` writes them, without the `init_args` that jsonargparse takes as well."""
    return ", ".join(key.strip().replace(".init_args.", ".") for key in str(name).split(","))


def _numbers(wanted: Any) -> Any:
    if isinstance(wanted, dict):
        return {key: _number(value) for key, value in wanted.items()}
    return [_number(value) for value in wanted] if isinstance(wanted, list) else wanted


def _number(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", value):
        return float(value)
    return value


def duration(value: Any, key: str) -> float:
    """Seconds of "90", "45s", "30m", "2h"; "1h30m" too.

    Raises:
        UserError: It is no duration, or not above 0.
    """
    text = str(value).replace(" ", "")
    parts = re.findall(r"(\d+(?:\.\d+)?)(min|[smhd]?)", text)
    seconds = sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or seconds <= 0:
        raise UserError(f"{key} {value!r}: expected a time above 0, such as 90s, 30m, 2h or 1h30m")
    return seconds


def name_of(chosen: str | Mapping[str, Any]) -> str:
    """The name of a sampler or pruner that may have arguments; "CMA-ES" and "cma_es" are "cmaes"."""
    name = chosen if isinstance(chosen, str) else chosen.get("name", "")
    return re.sub(r"[\W_]", "", str(name).lower())


def keys_of(name: str) -> list[str]:
    return name.split(", ")


def _choices(wanted: list[Any]) -> list[Any]:
    """As Optuna takes them: a list or a mapping becomes its JSON."""
    return [encoded(value) for value in wanted]


def encoded(value: Any) -> Any:
    """The experiment's value as Optuna takes it as a choice."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def decoded(value: Any) -> Any:
    """A choice as the experiment takes it."""
    try:
        return json.loads(value) if isinstance(value, str) and value.startswith(("[", "{")) else value
    except ValueError:  # a text that only begins like that
        return value


def _check(space: Space) -> None:
    """Refuse what can be seen to be wrong without the experiment."""
    if not isinstance(space.metric, str) or not space.metric.startswith("val/"):
        said = "the test set stays closed while a study runs; " if str(space.metric).startswith("test/") else ""
        raise UserError(f"metric {space.metric!r}: {said}it must be a validation metric, such as val/acc or val/loss")
    for field, allowed in (("direction", get_args(Direction)), ("keep", get_args(Keep))):
        if getattr(space, field) not in allowed:
            raise UserError(f"{field} {getattr(space, field)!r}: it must be one of {', '.join(allowed)}")
    for field, least in (("trials", 1), ("seeds", 1), ("confirm", 0)):
        number = getattr(space, field)
        if number is None and field == "trials":
            continue
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise UserError(f"{field} {number!r}: expected a whole number of at least {least}")
    if not isinstance(space.experiment, str) or not isinstance(space.description, str):
        raise UserError("experiment and description must be texts")
    for field in ("sampler", "pruner"):
        chosen = getattr(space, field)
        if not isinstance(chosen.get("name") if isinstance(chosen, dict) else chosen, str):
            raise UserError(f"{field} {chosen!r}: expected a name, or {{name: ..., and its arguments}}")
    for key in (*space.set, *(key for name in space.space for key in keys_of(name))):
        if key in NOT_SEARCHED:
            raise UserError(f"{key}: {NOT_SEARCHED[key]}")
    for name, wanted in space.space.items():
        _check_wanted(name, wanted, grid=space.is_grid)
    if space.trials is None and not space.is_grid:
        raise UserError("trials is required, unless the sampler is grid")


def _check_wanted(name: str, wanted: Any, *, grid: bool) -> None:
    if isinstance(wanted, list):
        if not wanted:
            raise UserError(f"space: {name}: the list of choices is empty")
        _check_choices(name, wanted)
        return
    if not isinstance(wanted, dict) or not {"low", "high"} <= set(wanted) <= set(_RANGE):
        raise UserError(f"space: {name}: expected a list of choices, or low and high (and log, step), got {wanted!r}")
    if grid:
        raise UserError(f"space: {name}: a grid needs a list of choices")
    for key in ("low", "high", "step"):
        value = wanted.get(key)
        if value is None and key == "step":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"space: {name}: {key} is {value!r}; it must be a number")
    low, high, step, log = wanted["low"], wanted["high"], wanted.get("step"), wanted.get("log", False)
    if low >= high:
        raise UserError(f"space: {name}: the range is empty: low {low} is not below high {high}")
    if not isinstance(log, bool):
        raise UserError(f"space: {name}: log is {log!r}; it must be true or false")
    if log and (low <= 0 or step is not None):
        raise UserError(f"space: {name}: with log, low must be above 0 and there is no step")
    if step is not None and not 0 < step <= high - low:
        raise UserError(f"space: {name}: step {step} does not fit between {low} and {high}")
    if step is not None and (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)):
        raise UserError(f"space: {name}: steps of {step} do not lead from {low} to {high}")


def _check_choices(name: str, wanted: list[Any]) -> None:
    for value in wanted:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise UserError(f"space: {name}: {value!r} cannot be a choice") from None
    choices = _choices(wanted)
    for number, value in enumerate(choices):
        if value in choices[:number]:  # as Optuna compares them: 1, 1.0 and true are the same
            raise UserError(f"space: {name}: choice {value!r} is there twice")

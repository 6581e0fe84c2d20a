"""A search space: an experiment, the keys to search, the metric to optimise, and the budget."""

import dataclasses
import math
import re
from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, get_args

from pipelines.config.arguments import Keep
from pipelines.runtime.errors import UserError
from pipelines.runtime.metric_names import mode_of, split_of
from pipelines.tracking.tags import FOLD_PARAM, FOLDS_PARAM
from sweeps.search.ranges import check_values, decode, distribution, encode, encode_choices, end_points, point_error

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Direction = Literal["maximize", "minimize"]
Values = dict[str, Any]
BY_NAME: Any = ""
DEFAULT_METRIC = "val/acc"
NOT_SEARCHED = {
    "seed_everything": "a study uses seeds 0, 1, ...; set their number with --seeds",
    "name": "a study's runs go to the MLflow experiment STUDY-sweep; name the study with --study",
    "description": "it has no effect on training",
    FOLD_PARAM: "set folds: N in the space; each fold validates once",
    FOLDS_PARAM: "set folds: N in the space; each fold validates once",
    "trainer.num_nodes": "all trials use as many nodes; set it once for all",
    "tracking_uri": "all runs of a study go to one tracking store; set it with --tracking_uri",
}


@dataclasses.dataclass(frozen=True)
class Space:
    """What a study searches, and how.

    Attributes:
        name: Name of the file; the study's name unless another is given.
        experiment: Name or path of the experiment.
        space: Dotted keys of the experiment, each with `{low, high, log, step}` or a list of choices. Keys that share
            their value are written as one, separated by commas.
        description: One line.
        metric: Objective of a trial, at the epoch that its run selects: a validation metric. By default, the metric
            that selects the epochs of the experiment, as far as this is known before a training.
        direction: Whether to maximise or to minimise it; by default, what its name tells, see `metric_names.mode_of`.
        sampler: "grid", or the name of one of Optuna's samplers, alone or with arguments (`{name: tpe, ...}`).
        pruner: "none", or the name of one of Optuna's pruners, likewise.
        trials: Number of trials in total; None for a grid means all points.
        timeout: Seconds after which no trial is started.
        trial_timeout: Seconds after which a training is killed, and its trial fails.
        seeds: Runs of each configuration, with seeds 0, 1, ...; a trial's value is their mean.
        folds: Number of folds of the data, each of which validates once: seed s has fold s modulo `folds`. By default,
            there are as many seeds as folds.
        confirm: Runs of the best configuration on fresh seeds after the search, the only ones that are tested.
        keep: Whose checkpoints to keep: those of the best trial, of all trials, or none.
        set: Keys of the experiment that have another value in all trials.

    Raises:
        UserError: A value is wrong; the message names the attribute or the searched key.
    """

    name: str
    experiment: str
    space: dict[str, Any]
    description: str = ""
    metric: str = BY_NAME
    direction: Direction = BY_NAME
    sampler: str | dict[str, Any] = "tpe"
    pruner: str | dict[str, Any] = "none"
    trials: int | None = None
    timeout: float | None = None
    trial_timeout: float | None = None
    seeds: int = 1
    folds: int | None = None
    confirm: int = 3
    keep: Keep = "best"
    set: dict[str, Any] = dataclasses.field(default_factory=dict)
    direction_by_name: bool = dataclasses.field(default=False, init=False, repr=False, compare=False)
    metric_by_default: bool = dataclasses.field(default=False, init=False, repr=False, compare=False)
    file: str = dataclasses.field(default="", init=False, repr=False, compare=False)  # for messages; "" if it has none

    def __post_init__(self) -> None:
        if self.metric == BY_NAME:
            object.__setattr__(self, "metric_by_default", True)
            object.__setattr__(self, "metric", DEFAULT_METRIC)
        if self.direction == BY_NAME:
            object.__setattr__(self, "direction_by_name", True)
            object.__setattr__(self, "direction", f"{mode_of(str(self.metric))}imize")
        if self.folds is not None and self.seeds == 1:
            object.__setattr__(self, "seeds", self.folds)
        _check_settings(self)
        for key in (*self.set, *(key for name in self.space for key in split_keys(name))):
            if key in NOT_SEARCHED:
                raise UserError(f"{key}: {NOT_SEARCHED[key]}")
        for name, values in self.space.items():
            check_values(name, values, grid=self.is_grid)
        if self.trials is None and not self.is_grid:
            raise UserError("trials is required, unless the sampler is grid")

    def with_metric(self, monitor: str | None) -> "Space":
        """Return this space with the metric that selects the epochs of the experiment, unless one is given."""
        if monitor is None or not self.metric_by_default or split_of(monitor) != "val":
            return self
        return dataclasses.replace(
            self, metric=monitor, direction=BY_NAME if self.direction_by_name else self.direction
        )

    @property
    def is_grid(self) -> bool:
        return canonical_name(self.sampler) == "grid"

    @property
    def total(self) -> int:
        """Number of trials of a complete study."""
        size = math.prod(len(choices) for choices in self.space.values()) if self.is_grid else math.inf
        return int(min(size, math.inf if self.trials is None else self.trials))

    def grid(self) -> list[Values]:
        """Return all points of a grid, the last key varying fastest, with the values as Optuna stores them."""
        names = list(self.space)
        return [dict(zip(names, point, strict=True)) for point in product(*map(encode_choices, self.space.values()))]

    def distributions(self, defaults: Mapping[str, Any]) -> "dict[str, BaseDistribution]":
        """Return Optuna's distributions.

        Args:
            defaults: The experiment's own value of each key; see `ranges.distribution`.
        """
        return {name: distribution(values, defaults.get(split_keys(name)[0])) for name, values in self.space.items()}

    def default_point(self, defaults: Mapping[str, Any]) -> Values:
        """Return the experiment's own values of the searched keys as Optuna stores them; empty if one is outside."""
        distributions, point = self.distributions(defaults), {}
        for name in self.space:
            point[name], *others = (encode(defaults.get(key)) for key in split_keys(name))
            if any(other != point[name] for other in others):
                return {}
        if point_error(point, distributions):
            return {}
        internal = {name: distribution.to_internal_repr(point[name]) for name, distribution in distributions.items()}
        return {name: distribution.to_external_repr(internal[name]) for name, distribution in distributions.items()}

    def settings(self, params: Mapping[str, Any]) -> Values:
        """Return the keys and values of the experiment for a trial's params; a class comes before its arguments."""
        return _classes_first({key: decode(value) for name, value in params.items() for key in split_keys(name)})

    def fixed(self) -> Values:
        """Return the keys and values that are the same in all trials; a class comes before its arguments."""
        return _classes_first({**self.set, **({} if self.folds is None else {FOLDS_PARAM: self.folds})})

    def settings_given(self) -> Values:
        """Return all settings as plain values, from which the space can be made again."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}

    def end_points(self) -> list[Values]:
        """Return one-key points that every search may reach: all choices, and both ends of each range."""
        return [{name: value} for name, values in self.space.items() for value in end_points(values)]


def split_keys(name: str) -> list[str]:
    """Split a searched key into the keys that share its value."""
    return name.split(", ")


def canonical_name(algorithm: str | Mapping[str, Any]) -> str:
    """Return the name of a sampler or pruner, with or without arguments; "CMA-ES" and "cma_es" become "cmaes"."""
    name = algorithm if isinstance(algorithm, str) else algorithm.get("name", "")
    return re.sub(r"[\W_]", "", str(name).lower())


def _classes_first(values: Mapping[str, Any]) -> Values:
    return dict(sorted(values.items(), key=lambda item: item[0].count(".")))


def _check_settings(space: Space) -> None:
    """Check everything but the searched keys."""
    split = split_of(str(space.metric))
    if not isinstance(space.metric, str) or split not in ("val", None):
        reason = "the test set stays closed while a study runs; " if split == "test" else ""
        raise UserError(f"metric {space.metric!r}: {reason}it must be a validation metric, such as val/acc or val/loss")
    for field, allowed in (("direction", get_args(Direction)), ("keep", get_args(Keep))):
        if getattr(space, field) not in allowed:
            raise UserError(f"{field} {getattr(space, field)!r}: it must be one of {', '.join(allowed)}")
    for field, minimum in (("trials", 1), ("seeds", 1), ("confirm", 0)):
        number = 1 if field == "trials" and space.trials is None else getattr(space, field)
        if not isinstance(number, int) or isinstance(number, bool) or number < minimum:
            raise UserError(f"{field} {number!r}: expected a whole number of at least {minimum}")
    if space.folds is not None and (not isinstance(space.folds, int) or space.folds < 2 or space.seeds % space.folds):
        raise UserError(f"folds {space.folds!r}: expected at least 2, of which seeds ({space.seeds}) is a multiple")
    if not isinstance(space.experiment, str) or not isinstance(space.description, str):
        raise UserError("experiment and description must be text")
    for field in ("sampler", "pruner"):
        algorithm = getattr(space, field)
        if not isinstance(algorithm.get("name") if isinstance(algorithm, dict) else algorithm, str):
            raise UserError(f"{field} {algorithm!r}: expected a name, or {{name: ..., and its arguments}}")

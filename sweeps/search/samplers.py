"""Optuna's samplers and pruners by name."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.runtime.errors import UserError
from pipelines.runtime.text import first_line
from sweeps.search.space import Space, canonical_name

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

_NO_SAMPLERS = ("Base", "PartialFixed", "Grid", "BruteForce")  # the last two end a study themselves; ours is "grid"
USUAL = ("grid", "random", "tpe", "cmaes", "gp", "qmc", "none", "median", "hyperband", "successivehalving")
_NO_PRUNERS = ("Base", "Nop", "Patient", "Wilcoxon")


def check_names(space: Space) -> None:
    """Refuse an unknown sampler or pruner before worker processes start; usual names are accepted without Optuna.

    Raises:
        UserError: The name or an argument is unknown.
    """
    if canonical_name(space.sampler) not in USUAL:
        make_sampler(space.sampler, 0)
    if canonical_name(space.pruner) not in USUAL:
        make_pruner(space.pruner, None)


def make_sampler(choice: str | Mapping[str, Any], variant: int) -> "BaseSampler":
    """Create one of Optuna's samplers by name, alone or with arguments: `{name: tpe, ...}`.

    `variant` changes the seed, so that a restarted sampler does not repeat its draws.

    Raises:
        UserError: The name or an argument is unknown.
    """
    from optuna import samplers

    if canonical_name(choice) == "grid":
        return samplers.RandomSampler(0)  # never asked: all points are queued
    cls, arguments = _find_class("sampler", choice, samplers, also="grid", excluded=_NO_SAMPLERS)
    if "seed" in inspect.signature(cls).parameters:
        seed = arguments.get("seed", 0)
        if not isinstance(seed, int) or not 0 <= seed < 2**31:
            raise UserError(f"sampler {canonical_name(choice)}: seed {seed!r}: expected a whole number of at least 0")
        arguments["seed"] = (seed + 1000 * variant) % 2**32
    sampler: BaseSampler = _construct("sampler", cls, arguments)
    return sampler


def make_pruner(choice: str | Mapping[str, Any], max_epochs: int | None) -> "BasePruner":
    """Create one of Optuna's pruners. Hyperband uses `max_epochs`, where None and -1 mean no limit."""
    from optuna import pruners

    if canonical_name(choice) == "none":
        return pruners.NopPruner()
    cls, arguments = _find_class("pruner", choice, pruners, also="none", excluded=_NO_PRUNERS)
    if cls is pruners.HyperbandPruner and max_epochs and max_epochs > 0:
        arguments.setdefault("max_resource", max_epochs)
    pruner: BasePruner = _construct("pruner", cls, arguments)
    return pruner


def _find_class(
    kind: str, choice: str | Mapping[str, Any], module: Any, *, also: str, excluded: tuple[str, ...]
) -> tuple[Any, dict[str, Any]]:
    """Return the class that a choice names, with or without its suffix such as "Sampler", and its arguments."""
    suffix, wanted = kind.title(), canonical_name(choice)
    names = [name for name in dir(module) if name.endswith(suffix) and not name.startswith(excluded)]
    classes = {name.removesuffix(suffix).lower(): getattr(module, name) for name in names}
    cls = classes.get(wanted) or classes.get(wanted.removesuffix(kind))
    if cls is None:
        known = ", ".join(sorted([also, *classes]))
        raise UserError(f"{kind} {wanted!r}: it must be one of {known}")
    return cls, {} if isinstance(choice, str) else {key: value for key, value in choice.items() if key != "name"}


def _construct(kind: str, cls: Any, arguments: dict[str, Any]) -> Any:
    parameters = inspect.signature(cls).parameters
    for key in arguments:
        if key not in parameters:
            raise UserError(f"{kind} {cls.__name__} has no argument {key}; it has {', '.join(parameters)}")
    if missing := [key for key, item in parameters.items() if item.default is item.empty and key not in arguments]:
        example = f"{{name: {cls.__name__.removesuffix(kind.title()).lower()}, {missing[0]}: ...}}"
        raise UserError(
            f"{kind} {cls.__name__} needs {', '.join(missing)}; set it in the space file: {kind}: {example}"
        )
    try:
        return cls(**arguments)
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"{kind} {cls.__name__}: {first_line(error)}") from error

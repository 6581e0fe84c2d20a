"""Optuna's samplers and pruners by name."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.runtime.errors import UserError
from sweeps.search.space import name_of

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

_NO_SAMPLERS = ("Base", "PartialFixed", "Grid", "BruteForce")  # the last two end a study themselves; ours is "grid"
_NO_PRUNERS = ("Base", "Nop", "Patient", "Wilcoxon")


def make_sampler(chosen: str | Mapping[str, Any], variant: int) -> "BaseSampler":
    """One of Optuna's samplers by name; each variant of it has draws of its own.

    Raises:
        UserError: There is none of that name, or it takes other arguments.
    """
    from optuna import samplers

    if name_of(chosen) == "grid":
        return samplers.RandomSampler(0)  # never asked: all points are queued
    arguments = _arguments(chosen)
    found = _class_of("sampler", chosen, samplers, "Sampler", also=["grid"], without=_NO_SAMPLERS)
    if "seed" in inspect.signature(found).parameters:
        seed = arguments.get("seed", 0)
        if not isinstance(seed, int) or not 0 <= seed < 2**31:
            raise UserError(f"sampler {name_of(chosen)}: seed {seed!r}: expected a whole number of at least 0")
        arguments["seed"] = (seed + 1000 * variant) % 2**32
    sampler: BaseSampler = _made("sampler", found, arguments)
    return sampler


def make_pruner(chosen: str | Mapping[str, Any], max_epochs: int | None) -> "BasePruner":
    """One of Optuna's pruners by name; Hyperband knows the length of a training.

    Raises:
        UserError: There is none of that name, or it takes other arguments.
    """
    from optuna import pruners

    if name_of(chosen) == "none":
        return pruners.NopPruner()
    arguments = _arguments(chosen)
    found = _class_of("pruner", chosen, pruners, "Pruner", also=["none"], without=_NO_PRUNERS)
    if found is pruners.HyperbandPruner and max_epochs and max_epochs > 0:
        arguments.setdefault("max_resource", max_epochs)
    pruner: BasePruner = _made("pruner", found, arguments)
    return pruner


def _arguments(chosen: str | Mapping[str, Any]) -> dict[str, Any]:
    return {} if isinstance(chosen, str) else {key: value for key, value in chosen.items() if key != "name"}


def _class_of(kind: str, chosen: Any, module: Any, ending: str, *, also: list[str], without: tuple[str, ...]) -> Any:
    """The class of a module whose name, without its ending, is the one that was chosen."""
    known = {name: getattr(module, name) for name in dir(module) if name.endswith(ending)}
    known = {name: found for name, found in known.items() if not name.startswith(without)}
    for name, found in known.items():
        if name_of(chosen) in (name.lower(), name.removesuffix(ending).lower()):
            return found
    names = ", ".join(sorted([*also, *(name.removesuffix(ending).lower() for name in known)]))
    raise UserError(f"{kind} {name_of(chosen)!r}: it must be one of {names}")


def _made(kind: str, found: Any, arguments: dict[str, Any]) -> Any:
    allowed = list(inspect.signature(found).parameters)
    for key in arguments:
        if key not in allowed:
            raise UserError(f"{kind} {found.__name__} has no {key}; it has {', '.join(allowed)}")
    parameters = inspect.signature(found).parameters.items()
    if missing := [key for key, it in parameters if it.default is it.empty and key not in arguments]:
        told = f"{{name: {found.__name__.removesuffix(kind.title()).lower()}, {missing[0]}: ...}}"
        raise UserError(f"{kind} {found.__name__} needs {', '.join(missing)}; say it in the file: {kind}: {told}")
    try:
        return found(**arguments)
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"{kind} {found.__name__}: {str(error).splitlines()[0]}") from error

"""Search the arguments of a function of the user that builds a module."""

import inspect
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.runtime.errors import UserError
from pipelines.tracking.labels import Labels
from sweeps.search.samplers import check_names
from sweeps.search.space import Space
from sweeps.search.sweep import SweepResult, run_sweep


def sweep_objects(
    build: Callable[..., Any],
    space: Space,
    *,
    data: Any = None,
    trainer: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    storage: str | None = None,
    retry_failed: bool = False,
    tracking_uri: str | None = None,
    labels: Labels | None = None,
    system_metrics: bool = False,
    command: str = "",
    notify: str = "",
) -> SweepResult:
    """Search as `sweep` does, in this process, one training after another. The study has the name of the space.

    Args:
        build: Takes the searched values as keyword arguments; returns a module, or a module and its data.
        space: The space, whose keys are arguments of `build`.
        data: The data, unless `build` returns them; see `Objects`.
        trainer: Arguments of the Trainer that are objects.
        overrides: Keys that are the same in all trials, as on the command line.
        storage: See `sweep`.
        retry_failed: See `sweep`.
        tracking_uri: See `sweep`.
        labels: See `sweep`.
        system_metrics: See `sweep`.
        command: See `sweep`.
        notify: See `sweep`.

    Raises:
        UserError: An argument is refused, or another process runs the study.
    """
    _check(build, space)
    check_names(space)
    from sweeps.workers.local_pool import LocalPool

    with (
        tempfile.TemporaryDirectory(prefix="litlab-sweep-") as folder,
        LocalPool(build, data, trainer or {}, Path(folder), system_metrics=system_metrics) as pool,
    ):
        place, own = (space.name, storage, tracking_uri), (labels or Labels(), command, notify)
        return run_sweep(space, pool, *place, overrides, 1, *own, retry_failed=retry_failed)


def _check(build: Callable[..., Any], space: Space) -> None:
    parameters = inspect.signature(build).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    for name in space.space:
        if name not in parameters and not takes_any:
            raise UserError(f"space: {name} is no argument of {_name(build)}({', '.join(parameters)})")
    without = [name for name, one in parameters.items() if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
    if missing := [name for name in without if name not in space.space]:
        raise UserError(f"{_name(build)} has no default of {missing[0]}, which the space does not search")
    if without and space.confirm:
        raise UserError(
            f"{_name(build)} has no default of {without[0]}: with it, the best configuration is compared on fresh "
            "seeds; give one, or confirm=0"
        )
    if space.pruner != "none" or space.trial_timeout is not None:
        raise UserError("objects are trained in this process: there is neither a pruner nor a trial_timeout")


def _name(build: Callable[..., Any]) -> str:
    return getattr(build, "__name__", type(build).__name__)

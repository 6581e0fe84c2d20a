"""Train one configuration with several seeds."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.arguments import given, key_arguments
from litlab.call import training_call
from litlab.errors import RunFailedError
from litlab.run import Run
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import format_command

if TYPE_CHECKING:
    from pipelines.config.objects import Objects
    from sweeps.workers.pool import Pool


def fit_seeds(
    arguments: list[str],
    origin: str | None,
    options: dict[str, Any],
    place: dict[str, Any],
    objects: "Objects | None",
) -> Run:
    """Train several seeds, and return the run that summarises them.

    Args:
        arguments: Those of `litlab fit`, without the seeds.
        origin: Id of a run whose configuration the arguments change.
        options: See `sweeps.seeds.fit_seeds`.
        place: Where to train, see `place_of`.
        objects: What is trained instead of an experiment, in this process.

    Raises:
        RunFailedError: A seed failed.
        KeyboardInterrupt: The user stopped it.
    """
    from sweeps.seeds.origin import with_origin

    command = _command(arguments, origin, options, place)
    overrides = arguments
    if origin is not None:
        overrides, options["labels"] = with_origin(origin, arguments, options["labels"], options["tracking_uri"])
    if objects is not None:
        refuse_place(place)
        command, options["make_pool"] = "litlab.fit(model=..., seeds=...)  # in Python", _pool_of(objects, options)
    with training_call():
        from sweeps.seeds.fit_seeds import fit_seeds as train

        result = train(None, overrides=overrides, command=command, **options, **place)
    run, done = Run(result.run_id, result.tracking_uri), f"{len(result.runs)} of {len(result.seeds)} seeds are done"
    raise_stop(result.stop_signal, f"{done}. The same call continues.")
    if result.failed:
        reasons = "; ".join(f"seed {failed.job.seed}: {failed.reason}" for failed in result.failed)
        raise RunFailedError(f"{done}. {reasons}. The same call tries the others again.", run)
    return run


def _pool_of(objects: "Objects", options: dict[str, Any]) -> "Callable[[Path], Pool]":
    """Return what makes a pool that trains objects.

    Raises:
        UserError: The model is a module, which would go on from the weights of the seed before.
    """
    from pipelines.config.objects import build_of
    from sweeps.workers.local_pool import LocalPool

    build = build_of(objects)
    system_metrics = options["system_metrics"]
    return lambda folder: LocalPool(build, objects.data, objects.trainer, folder, system_metrics=system_metrics)


def place_of(workers: int | None, cluster: str | None, cpus: float | None, gpus: float | None) -> dict[str, Any]:
    """Return the arguments that say where several trainings run, without those that are the default."""
    workers = None if workers == 1 and cluster is None else workers
    return given(workers=workers, cluster=cluster, cpus=cpus, gpus=gpus)


def refuse_place(place: dict[str, Any]) -> None:
    """Refuse to train objects several at a time, or on a cluster.

    Raises:
        UserError: An argument asks for it.
    """
    for name, value in place.items():
        raise UserError(f"{name}={value}: objects are trained in this process, one after another; leave it out")


def raise_stop(stop_signal: int | None, note: str) -> None:
    """Raise what a signal stands for that stopped several trainings, now that they have ended."""
    if stop_signal == signal.SIGINT:
        stop = KeyboardInterrupt()
        stop.add_note(note)
        raise stop
    if stop_signal is not None:
        signal.raise_signal(stop_signal)


def _command(arguments: list[str], origin: str | None, options: dict[str, Any], place: dict[str, Any]) -> str:
    """Return the command that does the same."""
    own = key_arguments(given(seeds=options["seeds"], folds=options["folds"], seed_everything=options["first_seed"]))
    own += key_arguments(place)
    own += key_arguments(given(tracking_uri=options["tracking_uri"], **{"from": origin}))
    return format_command("fit", [*arguments, *own, *options["labels"].as_arguments()])

"""Train: `fit` and `resume`."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.arguments import Files, Overrides, experiment_arguments, key_arguments, labels
from litlab.call import training_call
from litlab.errors import failures_with_run
from litlab.run import Run, run_id_of, uri_of
from litlab.several_seeds import fit_seeds
from pipelines.config.request import read_request
from pipelines.runtime.errors import UserError

if TYPE_CHECKING:
    from pipelines.tracking.store import StoredRun
    from pipelines.training.results import FitResult

FAST_DEV_RUN = "trainer.fast_dev_run"


def fit(
    experiment: str | Path | None = None,
    *,
    overrides: Overrides | None = None,
    config: Files = (),
    seed: int | None = None,
    seeds: int | None = None,
    workers: int = 1,
    name: str | None = None,
    run_name: str | None = None,
    tags: Mapping[str, Any] | None = None,
    note: str | None = None,
    from_run: str | Run | None = None,
    if_needed: bool = False,
    tracking_uri: str | None = None,
    trust: bool = False,
    system_metrics: bool = False,
    notify: str = "",
) -> Run:
    """Train an experiment and test its best epoch, as one run: the same that `litlab fit` makes of the same arguments.

    Args:
        experiment: Name of an experiment or path of a YAML file; None if `config` or `from_run` gives it.
        overrides: Keys with values, such as {"model.dropout": 0.3, "trainer.max_epochs": 5, "monitor": "val/acc"}.
        config: Further YAML files (`-c`); later ones take precedence.
        seed: Of weights, order, dropout and augmentation; with `seeds` the first one. Default: the experiment's, or 0.
        seeds: Train so many seeds. The returned run summarises them, see `Run.children`.
        workers: With `seeds`, trainings in parallel.
        name: The MLflow experiment; default: the name of the experiment.
        run_name: Name of the run; default: what it changes in the experiment, and the seed.
        tags: Tags of the run.
        note: Description of the run, in Markdown.
        from_run: A run whose configuration the overrides change.
        if_needed: Whether to return an equal finished run, if there is one, instead of training.
        tracking_uri: Database or server of the run; default: MLFLOW_TRACKING_URI, else the project's mlflow.db.
        trust: Whether to restore objects of a checkpoint to start from, which may run code.
        system_metrics: Whether to measure the machine.
        notify: Command to run in a shell when the run has ended.

    Raises:
        UserError: The request is invalid; there is no run.
        RunFailedError: The run failed.
        KeyboardInterrupt: The user stopped it. The run is KILLED, and `resume` continues it.
    """
    names = [] if experiment is None else [str(experiment)]
    arguments = [*names, *experiment_arguments(config, overrides, seed=None if seeds else seed, name=name)]
    if FAST_DEV_RUN in (overrides or {}):
        raise UserError(f"{FAST_DEV_RUN} records no run: {shlex.join(['litlab', 'fit', *arguments])} checks the steps")
    read_request("fit", arguments, on_run=from_run is not None)
    origin = None if from_run is None else run_id_of(from_run, tracking_uri)
    options: dict[str, Any] = {"tracking_uri": tracking_uri, "labels": labels(tags, note, run_name)}
    options |= {"system_metrics": system_metrics, "notify": notify}
    if seeds is None:
        return _fit_one(arguments, options | {"from_run": origin, "trust": trust}, if_needed=if_needed)
    if if_needed:
        raise UserError("if_needed is for one run; several seeds that were stopped continue without it")
    return fit_seeds(arguments, origin, {**options, "seeds": seeds, "workers": workers, "first_seed": seed})


def _fit_one(arguments: list[str], options: dict[str, Any], *, if_needed: bool) -> Run:
    with training_call(arguments), failures_with_run(options["tracking_uri"]):
        from pipelines.comparison.equal_finished import find_equal
        from pipelines.training.fit import fit as train

        result = train(None, overrides=arguments, find_equal=find_equal if if_needed else None, **options)
        return _finished(result)


def resume(
    run: str | Run,
    *,
    overrides: Overrides | None = None,
    assume_dead: bool = False,
    tracking_uri: str | None = None,
    trust: bool = False,
    system_metrics: bool = False,
    notify: str = "",
) -> Run:
    """Continue a run that was stopped or failed, from its last complete epoch, like `litlab resume`.

    Args:
        run: The run, or what names it: an id or its first characters, "latest", or the name of a run.
        overrides: Keys that change nothing in the training, such as {"data.data_dir": "data"}.
        assume_dead: Whether the process of a RUNNING run on another machine is known to be dead (`--dead`).
        tracking_uri: Where the run is; default: MLFLOW_TRACKING_URI, else the project's mlflow.db.
        trust: Whether to restore objects of its checkpoints, which may run code.
        system_metrics: Whether to measure the machine.
        notify: Command to run in a shell when the run has ended.

    Raises:
        UserError: There is no such run, it is finished, or its configuration or its data have changed.
        RunFailedError: The run failed.
        KeyboardInterrupt: The user stopped it.
    """
    arguments, uri = key_arguments(overrides), uri_of(run, tracking_uri)
    read_request("resume", arguments, on_run=True)
    options: dict[str, Any] = {"assume_dead": assume_dead, "trust": trust}
    options |= {"system_metrics": system_metrics, "notify": notify, "tracking_uri": uri}
    run_id = run_id_of(run, uri)
    with training_call(), failures_with_run(uri):
        from pipelines.training.resume import resume as train

        return _finished(train(run_id, overrides=arguments, **options))


def _finished(result: "FitResult | StoredRun | None") -> Run:
    """Return the run of a training; end a process that Lightning has started for a further device."""
    from pipelines.config.distributed import is_rank_zero
    from pipelines.tracking.store import StoredRun

    if result is not None:
        return Run(result.run_id, result.store.uri if isinstance(result, StoredRun) else result.tracking_uri)
    if is_rank_zero():
        raise UserError(f"{FAST_DEV_RUN} records no run")
    raise SystemExit  # the first process has the run

"""Train: `fit` and `resume`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.arguments import Files, Overrides, Values, experiment_arguments, given, key_arguments, labels
from litlab.call import training_call
from litlab.errors import failures_with_run
from litlab.objects import make_objects, object_keys
from litlab.run import Run, objects_of, run_id_of, uri_of
from litlab.several_seeds import fit_seeds, place_of
from pipelines.config.request import read_request
from pipelines.runtime.errors import UserError

if TYPE_CHECKING:
    from pipelines.config.objects import Data, Model, Objects
    from pipelines.tracking.store import StoredRun
    from pipelines.training.results import FitResult
    from sweeps.cluster.options import StackSize

FAST_DEV_RUN = "trainer.fast_dev_run"


def fit(
    experiment: str | Path | None = None,
    *,
    model: "Model | None" = None,
    data: "Data" = None,
    trainer: "Values | None" = None,
    overrides: "Overrides | None" = None,
    config: "Files" = (),
    seed: int | None = None,
    seeds: int | None = None,
    folds: int | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    stacked: "StackSize" = 1,
    name: str | None = None,
    run_name: str | None = None,
    tags: "Values | None" = None,
    note: str | None = None,
    from_run: str | Run | None = None,
    if_needed: bool = False,
    tracking_uri: str | None = None,
    trust: bool = False,
    system_metrics: bool = False,
    notify: str = "",
) -> Run:
    """Train an experiment and test its best epoch, as one run: the same that `litlab fit` makes of the same arguments.

    With `model`, it trains an object instead of an experiment, which is tracked, selected and tested alike.

    Args:
        experiment: Name of an experiment or path of a YAML file; None if `config`, `from_run` or `model` gives it.
        model: A LightningModule, which has the selected weights afterwards; or a function that makes one, which is
            called after the seed was set, so that its first weights depend on the seed.
        data: For a model: a LightningDataModule, a mapping of loaders by "train", "val", "test" and "predict", a
            training loader, or a function that makes one of these; None if the model defines its loaders.
        trainer: For a model: arguments of Lightning's Trainer, such as {"max_epochs": 5, "callbacks": [...]}.
        overrides: Keys with values, such as {"model.dropout": 0.3, "trainer.max_epochs": 5, "monitor": "val/acc"}.
        config: Further YAML files (`-c`); later ones take precedence.
        seed: Of weights, order, dropout and augmentation; with `seeds` the first one. Default: the experiment's, or 0.
        seeds: Train so many seeds. The returned run summarises them, see `Run.children`.
        folds: Cross-validation: each of so many parts of the training data validates once, see docs/DATA.md.
        workers: With `seeds` or `folds`, trainings in parallel; default: one, or all that a cluster has room for.
        cluster: With `seeds` or `folds`, a Ray cluster on which to train: "local", "auto" or "HOST:PORT", see
            docs/CLUSTERS.md.
        cpus: CPUs of each training there.
        gpus: GPUs of each training there, perhaps a fraction.
        stacked: With `seeds`, models that a worker trains as one; "auto" for as many as fit in memory.
        name: The MLflow experiment; default: the name of the experiment, or of the model's class.
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
    if model is not None:
        overrides = {**object_keys(experiment, config, from_run, trainer), **(overrides or {})}
    objects, names = make_objects(model, data, trainer), [] if experiment is None else [str(experiment)]
    arguments = [
        *names,
        *experiment_arguments(config, overrides, seed=seed if seeds is None and folds is None else None, name=name),
    ]
    if FAST_DEV_RUN in (overrides or {}):
        raise UserError(f"{FAST_DEV_RUN} records no run: {shlex.join(['litlab', 'fit', *arguments])} checks the steps")
    read_request("fit", arguments, on_run=from_run is not None or objects is not None)
    origin = None if from_run is None else run_id_of(from_run, tracking_uri)
    options: dict[str, Any] = {"tracking_uri": tracking_uri, "labels": labels(tags, note, run_name)}
    options |= {"system_metrics": system_metrics, "notify": notify}
    place = place_of(workers, cluster, cpus, gpus) | given(stacked=None if stacked == 1 else stacked)
    if seeds is None and folds is None:
        for several in place:
            raise UserError(f"{several} is for several trainings: it goes with seeds, folds or litlab.sweep")
        one = options | {"from_run": origin, "trust": trust, "objects": objects}
        return _fit_one(arguments, one, if_needed=if_needed)
    if if_needed:
        raise UserError("if_needed is for one run; several seeds that were stopped continue without it")
    return fit_seeds(
        arguments,
        origin,
        {**options, "seeds": folds if seeds is None else seeds, "folds": folds, "first_seed": seed},
        place,
        objects,
    )


def _fit_one(arguments: list[str], options: dict[str, Any], *, if_needed: bool) -> Run:
    with training_call(arguments), failures_with_run(options["tracking_uri"], options["objects"]):
        from pipelines.comparison.equal_finished import find_equal
        from pipelines.training.fit import fit as train

        result = train(None, overrides=arguments, find_equal=find_equal if if_needed else None, **options)
        return _finished(result, options["objects"])


def resume(
    run: str | Run,
    *,
    model: "Model | None" = None,
    data: "Data" = None,
    trainer: "Values | None" = None,
    overrides: "Overrides | None" = None,
    assume_dead: bool = False,
    tracking_uri: str | None = None,
    trust: bool = False,
    system_metrics: bool = False,
    notify: str = "",
) -> Run:
    """Continue a run that was stopped or failed, from its last complete epoch, like `litlab resume`.

    Args:
        run: The run, or what names it: an id or its first characters, "latest", or the name of a run.
        model: Of a run that was trained with objects: the same, of the same class with the same source.
        data: Of such a run.
        trainer: Of such a run: the arguments that are objects, such as callbacks.
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
    run_id, objects = run_id_of(run, uri), make_objects(model, data, trainer) or objects_of(run)
    options["objects"] = objects
    with training_call(), failures_with_run(uri, objects):
        from pipelines.training.resume import resume as train

        return _finished(train(run_id, overrides=arguments, **options), objects)


def _finished(result: "FitResult | StoredRun | None", objects: "Objects | None") -> Run:
    """Return the run of a training; end a process that Lightning has started for a further device."""
    from pipelines.config.distributed import is_rank_zero
    from pipelines.tracking.store import StoredRun

    if result is not None:
        uri = result.store.uri if isinstance(result, StoredRun) else result.tracking_uri
        return Run(result.run_id, uri, objects=objects)
    if is_rank_zero():
        raise UserError(f"{FAST_DEV_RUN} records no run")
    raise SystemExit  # the first process has the run

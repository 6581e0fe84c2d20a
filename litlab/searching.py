"""Many trainings: `sweep` and `reproduce`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.arguments import Duration, Overrides, Values, given, key_arguments, labels
from litlab.call import training_call
from litlab.objects import split_trainer
from litlab.run import Run
from litlab.several_seeds import place_of, raise_stop, refuse_place
from pipelines.config.arguments import Keep
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import format_command

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.config.objects import Data
    from sweeps.cluster.options import StackSize
    from sweeps.search.sweep import SweepResult

Searched = str | Path | Callable[..., Any]  # annotations with quotes are short in `help`


class Sweep:
    """A study and what it has found. `litlab.sweep` returns it.

    Attributes:
        study: Name of the study, for the commands and for `litlab.compare`.
        run: The study's own run, with the best configuration and its checkpoint.
        best_params: The searched keys of the best trial; empty if no trial is complete.
        best_value: The value of the best trial; None without one.
        verdict: Whether the best configuration is better than the experiment's own on fresh seeds; "" if unknown.
        confirmed: The runs on fresh seeds, of "best" and of "default".
        n_finished: How many trials have ended.
        n_failed: How many of these failed.
    """

    def __init__(self, result: "SweepResult") -> None:
        self.study, self.run = result.study, Run(result.run_id, result.tracking_uri)
        best = result.best
        self.best_params: dict[str, Any] = {} if best is None else result.space.settings(best.params)
        self.best_value = None if best is None else best.value
        self.verdict, self.n_finished, self.n_failed = result.verdict, result.n_finished, result.n_failed
        self._storage, self._best_runs = result.storage, [] if best is None else best.runs
        confirmed = result.confirmed.items()
        self.confirmed = {name: [Run(run.run_id, result.tracking_uri) for run in runs] for name, runs in confirmed}

    @property
    def best_run(self) -> Run | None:
        """The run of the best trial, the first of its seeds; None without one."""
        return Run(self._best_runs[0], self.run.tracking_uri) if self._best_runs else None

    def trials(self) -> "pd.DataFrame":
        """Return Optuna's table of all trials: the metric, `params_KEY`, state and times, by number."""
        import optuna

        from sweeps.search.storage import open_storage

        study = optuna.load_study(study_name=self.study, storage=open_storage(self._storage))
        frame = study.trials_dataframe(attrs=("number", "value", "params", "state", "datetime_start", "duration"))
        return frame.set_index("number").rename(columns=lambda name: name.removeprefix("value_"))

    def __repr__(self) -> str:
        found = "" if self.best_value is None else f", best {self.best_value:.4f}: {self.best_params}"
        return f"<litlab.Sweep {self.study}: {self.n_finished} trials{found}>"


def sweep(
    searched: "Searched",
    *,
    space: "Values | None" = None,
    data: "Data" = None,
    trainer: "Values | None" = None,
    metric: str | None = None,
    trials: int | None = None,
    timeout: "Duration | None" = None,
    trial_timeout: "Duration | None" = None,
    sampler: str | None = None,
    pruner: str | None = None,
    seeds: int | None = None,
    confirm: int | None = None,
    keep: "Keep | None" = None,
    workers: int | None = None,
    cluster: str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    stacked: "StackSize" = 1,
    name: str | None = None,
    storage: str | None = None,
    retry_failed: bool = False,
    overrides: "Overrides | None" = None,
    run_name: str | None = None,
    tags: "Values | None" = None,
    note: str | None = None,
    tracking_uri: str | None = None,
    system_metrics: bool = False,
    notify: str = "",
    study: str | None = None,
) -> "Sweep":
    """Search a space with Optuna, then confirm the best configuration on fresh seeds, like `litlab sweep`.

    The same call continues a study that was stopped.

    Args:
        searched: Name or YAML file of a space, which the arguments from `trials` to `keep` override. Or a function that
            takes the searched values as keyword arguments and returns a module, or a module and its data. Its defaults
            are what the best is compared with. It is called in this process, and trains one trial after another.
        space: Of a function: its arguments, each with a list of choices or {"low", "high", "log", "step"}.
        data: Of a function that returns only a module; see `litlab.fit`.
        trainer: Of a function: arguments of the Trainer.
        metric: Of a function: the validation metric to optimise; default: val/acc.
        trials: Number of trials in total.
        timeout: Start no trial after this time: seconds, or text such as "2h".
        trial_timeout: Stop a training that takes longer; its trial fails.
        sampler: "grid", or the name of one of Optuna's samplers.
        pruner: "none", or the name of one of Optuna's pruners.
        seeds: Runs of each configuration, whose mean is its value.
        confirm: Runs of the best configuration on fresh seeds.
        keep: Whose checkpoints to keep: "best", "all" or "none".
        workers: Trainings in parallel; they share CPU cores and GPUs. Default: one, or all that a cluster has room for.
        cluster: A Ray cluster on which to train: "local", "auto" or "HOST:PORT", see docs/CLUSTERS.md.
        cpus: CPUs of each training there.
        gpus: GPUs of each training there, perhaps a fraction.
        stacked: Models that a worker trains as one; "auto" for as many as fit in memory.
        name: Name of the study; default: that of the space, or of the function.
        storage: URL of Optuna's storage; default: optuna.db next to the runs' database.
        retry_failed: Whether to train the configurations of failed trials again.
        overrides: Keys of the experiment, the same in all trials.
        run_name: Name of the study's run.
        tags: Tags of the study's run and of all others.
        note: Description of the study's run.
        tracking_uri: Where the runs are; default: MLFLOW_TRACKING_URI, else the project's mlflow.db.
        system_metrics: Whether to measure the machine.
        notify: Command to run in a shell when the sweep has ended.
        study: The same as `name`, which `--study` of the command is called.

    Raises:
        UserError: The request is invalid, or another process runs the study.
        KeyboardInterrupt: The user stopped it.
    """
    if None not in (name, study):
        raise UserError("name and study are the same: give one of them")
    study = name or study
    settings = given(trials=trials, timeout=timeout, trial_timeout=trial_timeout, sampler=sampler, pruner=pruner)
    settings |= given(seeds=seeds, confirm=confirm, keep=keep)
    where = given(storage=storage, tracking_uri=tracking_uri)
    common: dict[str, Any] = {**where, "labels": labels(tags, note, run_name), "retry_failed": retry_failed}
    common |= {"system_metrics": system_metrics, "notify": notify}
    place = place_of(workers, cluster, cpus, gpus) | given(stacked=None if stacked == 1 else stacked)
    if callable(searched):
        refuse_place(place)
        settings |= given(metric=metric)
        result = _sweep_objects(searched, space, data, trainer, settings, study, overrides, common)
    else:
        if space is not None or data is not None or trainer is not None or metric is not None:
            raise UserError("space, data, trainer and metric go with a function: litlab.sweep(build, space={...})")
        result = _sweep_space(searched, {**settings, **given(study=study)}, place, overrides, common)
    done = f"{result.n_finished} of {result.space.total} trials are done. The same call continues."
    raise_stop(result.stop_signal, done)
    return Sweep(result)


def _sweep_space(
    space: str | Path,
    settings: dict[str, Any],
    place: dict[str, Any],
    overrides: Overrides | None,
    common: dict[str, Any],
) -> "SweepResult":
    keys, stores = key_arguments(overrides), given(storage=common.get("storage"), uri=common.get("tracking_uri"))
    shown = settings | place
    shown |= {{"uri": "tracking_uri"}.get(key, key): value for key, value in stores.items()}
    command = format_command("sweep", [str(space), *key_arguments(shown), *keys, *common["labels"].as_arguments()])
    with training_call():
        from sweeps.search.sweep import sweep as search

        return search(space, overrides=keys, command=command, **{**settings, **place, **common})


def _sweep_objects(
    build: Callable[..., Any],
    space: Mapping[str, Any] | None,
    data: "Data",
    trainer: Mapping[str, Any] | None,
    settings: dict[str, Any],
    study: str | None,
    overrides: Overrides | None,
    common: dict[str, Any],
) -> "SweepResult":
    from sweeps.search.space_files import make_space

    name = getattr(build, "__name__", type(build).__name__).strip("<>")
    if not space:
        raise UserError(f"space: give the arguments of {name} to search, such as {{'lr': [0.1, 0.01]}}")
    searched = make_space(study or name, {"experiment": name, "space": dict(space), **settings})
    keys, objects = split_trainer(trainer)
    with training_call():
        from sweeps.search.sweep_objects import sweep_objects

        command = f"litlab.sweep({name}, space=...)  # in Python"
        options = {"overrides": key_arguments({**keys, **(overrides or {})}), "command": command, **common}
        return sweep_objects(build, searched, data=data, trainer=objects, **options)


def reproduce(
    *ids: str,
    tier: str = "quick",
    seeds: int | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
    train: bool = True,
    measurements: str | Path | None = None,
    data_dir: str | Path | None = None,
    out: str | Path | None = None,
    tracking_uri: str | None = None,
) -> "pd.DataFrame":
    """Run published experiments with several seeds, and judge each published claim, like `litlab reproduce`.

    Args:
        ids: Ids of published experiments; default: all.
        tier: "quick": minutes, on data that come with litlab. "full": hours, on the published data.
        seeds: Runs of each experiment; default: as many as were planned for it.
        workers: Trainings in parallel; default: one with a GPU, else as many as there are CPU cores, up to 4.
        cluster: A Ray cluster on which to train, see `sweep`; also for the two below.
        cpus: CPUs of each training there.
        gpus: GPUs of each training there.
        train: Whether to run what is missing; otherwise only runs that exist are judged.
        measurements: Folder of CSV files of measured runs, of the full tier: what they have is not run, and what is
            missing is added.
        data_dir: Folder of MNIST and CIFAR-10.
        out: Folder for RESULTS.md and results.html; default: `reproduction` in the current folder.
        tracking_uri: Where the runs are; default: MLFLOW_TRACKING_URI, else the project's mlflow.db.

    Returns:
        A row for each claim, with the verdict; `attrs["pages"]` are the files that were written, `attrs["failures"]`
        why jobs failed.

    Raises:
        UserError: The request is invalid.
        KeyboardInterrupt: The user stopped it.
    """
    import pandas as pd

    arguments: dict[str, Any] = {"tier": tier, "seeds": seeds, "workers": workers, "data_dir": data_dir, "out": out}
    arguments |= {"cluster": cluster, "cpus": cpus, "gpus": gpus, "measurements": measurements}
    command = format_command("reproduce", [*ids, *key_arguments(given(**arguments, tracking_uri=tracking_uri))])
    with training_call():
        from sweeps.reproduction.reproduce import reproduce as run_all

        result = run_all(ids, **arguments, train=train, tracking_uri=tracking_uri, command=command)
    raise_stop(result.stop_signal, "The same call continues.")
    rows = [
        {"experiment": name, "claim": verdict.claim.text, "measured": verdict.result, "verdict": verdict.word}
        for name, verdicts in result.verdicts.items()
        for verdict in verdicts
    ]
    frame = pd.DataFrame(rows, columns=["experiment", "claim", "measured", "verdict"])
    frame.attrs |= {"pages": [*result.pages], "failures": dict(result.failures)}
    return frame

"""Train one job in a worker process, and report through a pipe. Does not use Optuna.

Worker processes are forked from a server that has imported torch and lightning, so they start warm. In a training on
several devices this process has rank 0; Lightning starts the other ranks by running this file with the path of the job
file.
"""

import importlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.pop(0)  # this folder; its modules must not hide others of the same name
    importlib.import_module("litlab")  # a project may have packages of the names of litlab's

from lightning.pytorch import Callback, LightningDataModule, LightningModule

from datamodules.in_memory import InMemoryDataModule
from modules.base import Learner
from pipelines.config.cli import LitlabCLI, parse_config
from pipelines.config.defaults import config_defaults
from pipelines.config.distributed import is_rank_zero, process_count_tags
from pipelines.config.identity import flatten_config
from pipelines.runtime.class_paths import with_old_class_paths
from pipelines.runtime.errors import StoppedError, UserError
from pipelines.runtime.log import configure_logging
from pipelines.runtime.process import exit_with_rank_zero
from pipelines.runtime.signals import exit_on_sigterm
from pipelines.runtime.silence import silence_lightning
from pipelines.runtime.terminal_log import recorded_terminal
from pipelines.runtime.user_traceback import user_traceback
from pipelines.tracking.endings import recorded
from pipelines.tracking.run import Run
from pipelines.tracking.tags import CONFIG_HASH_TAG
from pipelines.training.job import Training, build_parts, prepare_model, prepare_training
from pipelines.training.results import finalize
from pipelines.training.run_metadata import run_name, run_tags
from pipelines.training.train import train, train_on_further_device
from sweeps.workers.job import IN_SPACE, Job, as_arguments
from sweeps.workers.process import (
    create_run,
    describe_error,
    final_message,
    join_nodes,
    max_epochs,
    selected_metrics,
    send,
    set_selection,
    setup_process,
)
from sweeps.workers.pruning import PruningCallback


def run_jobs(jobs: Sequence[Job], pipes: Sequence[connection.Connection]) -> None:
    """Run a job, or several stacked ones, in a new process.

    The last message about each is ("done", metrics), or that of `final_message`.
    """
    job, pipe = jobs[0], pipes[0]
    setup_process(job)
    if job.stacked:
        from sweeps.workers.stacked_trials import Trials

        exit_on_sigterm()
        Trials(jobs, pipes).train()
        return
    sys.argv = [str(Path(__file__).resolve()), job.job_file]  # Lightning runs this for further devices
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # further devices import from the same places
    sys.modules["__main__"].__spec__ = None
    join_nodes(job)
    try:
        send(pipe, ("done", _train(job, pipe) if job.verb == "fit" else _run_verb(job)))
    except BaseException as error:
        send(pipe, final_message(error))


def check_experiment(job: Job, configurations: list[dict[str, Any]], pipe: connection.Connection) -> None:
    """Parse and build an experiment, also with each configuration, and read its data; send the facts about it.

    The message is ("done", facts), ("refused", reason) for a mistake of the user, or ("failed", reason).
    """
    from sweeps.workers import stacked_check as stacked

    setup_process(job, checks=True)
    try:
        silence_lightning()
        cli = parse_config(job.verb, job.arguments, draws_seed=False)  # each training is given one
        devices_each(cli)
        if job.stacked:
            stacked.check_keys([key for values in configurations for key in values])
        data, model = build_parts(cli, test=job.test)
        built = {format_values(values): _build(job.arguments, values) for values in configurations}
        prepare_model(model)
        cli.make_trainer(callbacks=None, logger=False, enable_checkpointing=False)
        size = stacked.check(cli, data, model, built, job.sharers) if job.stacked else 1
        send(pipe, ("done", {**experiment_facts(job, cli, data, model), "stack_size": size}))
    except UserError as error:
        send(pipe, ("refused", str(error)))
    except BaseException as error:
        if found := user_traceback(error):
            send(pipe, ("refused", f"{found.line}\n{found.traceback}"))
            return
        traceback.print_exc()
        send(pipe, ("failed", describe_error(error)))


def experiment_facts(
    job: Job, cli: LitlabCLI, data: LightningDataModule | None, model: LightningModule
) -> dict[str, Any]:
    """Return what a controller needs to know about an experiment, as plain values."""
    tags = run_tags(cli, job.verb, job.arguments)
    return {
        "values": flatten_config(with_old_class_paths(cli.resolved())),
        "monitor": model.monitor if isinstance(model, Learner) else None,
        "params": cli.params(),
        "hash": tags[CONFIG_HASH_TAG],
        "config": cli.config_to_save(),
        "defaults": config_defaults(cli),
        "max_epochs": cli.config.trainer.max_epochs,
        "devices": devices_each(cli),
        "nodes": cli.config.trainer.num_nodes,
        "tracking_uri": cli.config.tracking_uri,
        "run_name": run_name(job.arguments, job.seed),
        "tags": tags,
        "dataset": data.describe() if job.test and isinstance(data, InMemoryDataModule) else None,
    }


def devices_each(cli: LitlabCLI) -> int:
    """Return on how many devices an experiment trains.

    Raises:
        UserError: They are chosen by index, or all that there are are to be used.
    """
    devices = cli.config.trainer.devices
    if devices == "auto":
        return 1
    if not str(devices).isdecimal() or int(devices) < 1:
        chosen = "CUDA_VISIBLE_DEVICES=2,3 chooses GPUs for all of them"
        raise UserError(f"trainer.devices is {devices}: give the number of devices of each training; {chosen}")
    return int(devices)


def _build(arguments: list[str], values: dict[str, Any]) -> LightningModule:
    with named_point(values):
        return parse_config("sweep", [*arguments, *as_arguments(values)]).build()[1]


@contextmanager
def named_point(values: dict[str, Any]) -> Iterator[None]:
    """Name keys and values of a space in the message for an error that they cause, also in a file of the user.

    Raises:
        UserError: There was an error in the block.
    """
    try:
        yield
    except Exception as error:
        found = None if isinstance(error, UserError) else user_traceback(error)
        if found is None and not isinstance(error, UserError):
            raise
        reason = str(error) if found is None else f"{found.line}\n{found.traceback}".rstrip()
        raise UserError(f"{IN_SPACE}{format_values(values)}: {reason}") from error


def format_values(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value!r}" for key, value in values.items())


@recorded_terminal()
def _train(job: Job, pipe: connection.Connection | None) -> dict[str, float]:
    """Train like `litlab fit`, and return the metrics at the selected epoch; on further devices, an empty dict."""
    silence_lightning()
    cli: LitlabCLI = parse_config("sweep", job.arguments_with_seed)
    training, reporter = prepare_job(job, cli, pipe)
    exit_on_sigterm()
    if not is_rank_zero():
        train_on_further_device(training, test=job.test)
        return {}
    assert pipe is not None
    run = create_run(job, cli, process_count_tags(training.trainer))
    send(pipe, ("run", run.run_id, max_epochs(training.trainer)))
    return train_job(job, training, run, reporter)


def prepare_job(
    job: Job, cli: LitlabCLI, pipe: connection.Connection | None, callbacks: Sequence[Callback] = ()
) -> tuple[Training, PruningCallback]:
    """Return the training of a job, and the callback that reports its metric."""
    reporter = PruningCallback(job.metric, pipe)
    training = prepare_training(cli, [reporter, *callbacks], test=job.test)
    set_selection(job, training)
    return training, reporter


def train_job(job: Job, training: Training, run: Run, reporter: PruningCallback) -> dict[str, float]:
    """Train, end the run, and return the metrics at the selected epoch."""
    with recorded(run):
        seconds = train(training, run, test=job.test)
        if reporter.pruned_at is not None:
            raise StoppedError(f"pruned after epoch {reporter.pruned_at} ({job.pruner})")
        finalize(training, run, seconds, test=job.test)
    return selected_metrics(run)


def _run_verb(job: Job) -> dict[str, float]:
    """Run `litlab baseline` or `litlab explain`, which have their results in runs of their own."""
    from pipelines.commands import baseline, explain

    os.environ["MLFLOW_TRACKING_URI"] = job.tracking_uri
    with tempfile.TemporaryDirectory(prefix="litlab-explain-") as folder:
        if job.verb == "baseline":
            code = baseline.main(job.verb, [*job.arguments_with_seed, "--name", job.experiment])
        else:
            code = explain.main(job.verb, [*job.arguments, "--out", folder])
    if code:
        raise RuntimeError(f"litlab {job.verb} ended with exit code {code}")
    return {}


if __name__ == "__main__":  # a further device of a training on several devices
    configure_logging()
    exit_with_rank_zero()
    _train(Job(**json.loads(Path(sys.argv[1]).read_text())), None)

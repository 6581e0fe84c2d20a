"""What a child process does: one training with a trial's values. It reports through a pipe; it never sees Optuna.

The processes are forked from a server that has imported torch and lightning, so that they start warm. In a training on
several devices this process is the first; Lightning starts the others by running this file with the specification's
name.
"""

import json
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose names are nobody's but ours

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities import rank_zero_only

from datamodules.base import InMemoryDataModule
from pipelines.config.cli import LitlabCLI, load_data, parse_config
from pipelines.config.defaults import config_defaults
from pipelines.config.identity import config_hash, flatten_config
from pipelines.runtime.class_paths import with_old_class_paths
from pipelines.runtime.errors import StoppedError, UserError
from pipelines.runtime.log import configure_logging
from pipelines.runtime.process import exit_with_rank_zero
from pipelines.runtime.signals import exit_on_sigterm
from pipelines.runtime.silence import silence_lightning
from pipelines.tracking.run import recorded
from pipelines.training.job import check_config, prepare_training
from pipelines.training.results import finalize
from pipelines.training.run_metadata import config_to_save, run_name, run_tags
from pipelines.training.train import run_trainer, train
from sweeps.workers.child import Reporter, _reason, final_message, make_run, selected, send, setup_process
from sweeps.workers.job import Job, as_arguments


def begin(spec: Job, pipe: connection.Connection) -> None:
    """The training of a fresh process; the last message is ("done", metrics), or says why there are none."""
    setup_process(spec)
    sys.argv = [str(Path(__file__).resolve()), spec.path]  # what Lightning runs for further devices
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # which import from where this one does
    sys.modules["__main__"].__spec__ = None
    try:
        send(pipe, ("done", _train(spec, pipe) if spec.verb == "fit" else OTHERS[spec.verb](spec)))
    except BaseException as error:
        send(pipe, final_message(error))


def check(spec: Job, ends: list[dict[str, Any]], pipe: connection.Connection) -> None:
    """Parse and build the experiment with each of these values, and read its data; sends what it says of itself."""
    from sweeps.workers import stacked_trials as stacked

    setup_process(spec)
    try:
        silence_lightning()
        cli = parse_config(spec.verb, spec.arguments)
        if spec.stacked:
            stacked.check_keys([key for values in ends for key in values])
        built = {_said(values): _build(spec.arguments, values) for values in ends}
        check_config(cli)
        data, model = cli.build()
        cli.make_trainer(callbacks=None, logger=False, enable_checkpointing=False)
        for stage in ("fit", "test") if spec.test else ("fit",):
            load_data(data, stage)
        if spec.stacked:
            stacked.check(cli, data, model, built)
        send(pipe, ("done", _facts(spec, cli, data)))
    except UserError as error:
        send(pipe, ("refused", str(error)))
    except BaseException as error:
        traceback.print_exc()
        send(pipe, ("failed", _reason(error)))


def _facts(spec: Job, cli: LitlabCLI, data: LightningDataModule) -> dict[str, Any]:
    """What a controller needs to know of an experiment, as plain values."""
    devices = cli.config.trainer.devices
    return {
        "values": flatten_config(with_old_class_paths(cli.resolved())),
        "params": cli.params(),
        "hash": config_hash(cli.resolved()),
        "config": config_to_save(cli),
        "defaults": config_defaults(cli),
        "max_epochs": cli.config.trainer.max_epochs,
        "devices": devices if isinstance(devices, int) else 1,
        "tracking_uri": cli.config.tracking_uri,
        "run_name": run_name(spec.arguments, spec.seed),
        "tags": run_tags(cli, shlex.join(["litlab", spec.verb, *spec.arguments])),
        "card": data.describe() if spec.test and isinstance(data, InMemoryDataModule) else None,
    }


def _build(arguments: list[str], values: dict[str, Any]) -> LightningModule:
    try:
        return parse_config("sweep", [*arguments, *as_arguments(values)]).build()[1]
    except UserError as error:
        raise UserError(f"space: {_said(values)}: {error}") from error


def _said(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value!r}" for key, value in values.items())


def _train(spec: Job, pipe: connection.Connection | None) -> dict[str, float]:
    """Train, and keep the run as `litlab fit` does; returns its metrics at the selected epoch."""
    silence_lightning()
    cli: LitlabCLI = parse_config("sweep", spec.command)
    reporter = Reporter(spec.metric, pipe)
    job = prepare_training(cli, [reporter], test=spec.test)
    exit_on_sigterm()
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        run_trainer(job)
        return {}
    assert pipe is not None
    run = make_run(spec, cli)
    send(pipe, ("run", run.run_id))
    with recorded(run):
        seconds = train(job, run)
        if reporter.pruned_at is not None:
            raise StoppedError(f"pruned after epoch {reporter.pruned_at} ({spec.pruner})")
        finalize(job, run, seconds, test=spec.test)
    return selected(run)


def _baseline(spec: Job) -> dict[str, float]:
    """Do what `litlab baseline` does; its runs have the metrics."""
    from pipelines.commands import baseline

    return _call(baseline.main, spec, [*spec.command, "--name", spec.experiment])


def _explain(spec: Job) -> dict[str, float]:
    """Run `litlab explain`; picture and numbers are saved in its child run."""
    from pipelines.commands.explain import main

    with tempfile.TemporaryDirectory(prefix="litlab-explain-") as folder:
        return _call(main, spec, [*spec.arguments, "--out", folder])


def _call(main: Callable[[str, list[str]], int], spec: Job, argv: list[str]) -> dict[str, float]:
    os.environ["MLFLOW_TRACKING_URI"] = spec.uri
    if code := main(spec.verb, argv):
        raise RuntimeError(f"litlab {spec.verb} ended with exit code {code}")
    return {}


OTHERS = {"baseline": _baseline, "explain": _explain}
if __name__ == "__main__":  # a further device of a training on several
    configure_logging()
    exit_with_rank_zero()
    _train(Job(**json.loads(Path(sys.argv[1]).read_text())), None)

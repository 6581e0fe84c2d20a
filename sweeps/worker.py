"""What a child process does: one training with a trial's values. It reports through a pipe; it never sees Optuna.

The processes are forked from a server that has imported torch and lightning, so that they start warm. In a training on
several devices this process is the first; Lightning starts the others by running this file with the specification's
name.
"""

import contextlib
import json
import math
import os
import shlex
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose names are nobody's but ours

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only

from datamodules.base import InMemoryDataModule
from pipelines import config, fit, interrupt, process, quiet
from pipelines.config import LitlabCLI
from pipelines.errors import StoppedError, UserError
from pipelines.store import Store
from pipelines.tracking import Run, recorded
from sweeps.spec import Spec, as_arguments, visible_gpus

GRACE_S = 20.0  # for a training whose controller has died


class RefusedError(UserError):
    """What ends this training would end any other trial's, too."""


class Reporter(Callback):
    """Tells the controller the metric of each epoch; ends the training, on all devices together, if it says so.

    Without a metric it tells what the model monitors, for the screen, and refuses nothing.
    """

    def __init__(self, metric: str | None, pipe: connection.Connection | None) -> None:
        self._metric, self.pipe = metric, pipe
        self.pruned_at: int | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        value = self.value(trainer, pl_module)
        stop = False
        if trainer.is_global_zero and self.pipe is not None:
            self.tell(trainer.current_epoch + 1, value)
            stop = self.hear()
        if trainer.strategy.broadcast(stop):
            self.pruned_at = trainer.current_epoch
            trainer.should_stop = True

    def value(self, trainer: Trainer, pl_module: LightningModule) -> float | None:
        """What is told of the epoch that has been validated.

        Raises:
            RefusedError: There is no such metric.
            FloatingPointError: It is not finite.
        """
        measured = trainer.callback_metrics
        if self._metric is None:
            key = getattr(pl_module, "monitor", "val/loss")
            return float(measured[key]) if key in measured else None
        if self._metric not in measured:
            logged = ", ".join(sorted(key for key in measured if key.startswith("val/")))
            raise RefusedError(f"metric {self._metric}: the experiment logs {logged or 'no validation metric'}")
        value = float(measured[self._metric])
        if not math.isfinite(value):
            raise FloatingPointError(f"{self._metric} is {value} in epoch {trainer.current_epoch}")
        return value

    def tell(self, epoch: int, value: float | None) -> None:
        """Tell the controller; it will answer."""
        assert self.pipe is not None
        send(self.pipe, ("epoch", epoch, value))

    def hear(self) -> bool:
        """Whether the controller ends the training.

        Raises:
            StoppedError: It has died.
        """
        assert self.pipe is not None
        try:
            return bool(self.pipe.recv())
        except (EOFError, OSError) as error:
            raise StoppedError("its controller died") from error


def begin(spec: Spec, pipe: connection.Connection) -> None:
    """The training of a fresh process; the last message is ("done", metrics), or says why there are none."""
    settle(spec)
    sys.argv = [str(Path(__file__).resolve()), spec.path]  # what Lightning runs for further devices
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # which import from where this one does
    sys.modules["__main__"].__spec__ = None
    try:
        send(pipe, ("done", _train(spec, pipe) if spec.verb == "fit" else OTHERS[spec.verb](spec)))
    except BaseException as error:
        send(pipe, last_words(error))


def last_words(error: BaseException) -> tuple[str, str]:
    """What a training that did not come to its end says last."""
    if isinstance(error, StoppedError):
        return "pruned", str(error)
    if isinstance(error, RefusedError):
        return "refused", str(error)
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "stopped", _reason(error)
    if not isinstance(error, UserError | FloatingPointError):
        traceback.print_exception(error)
    return "failed", _reason(error)


def check(spec: Spec, ends: list[dict[str, Any]], pipe: connection.Connection) -> None:
    """Parse and build the experiment with each of these values, and read its data; sends what it says of itself."""
    from sweeps import stacked

    settle(spec)
    try:
        quiet.lightning()
        cli = config.parse(spec.verb, spec.arguments)
        if spec.stacked:
            stacked.check_keys([key for values in ends for key in values])
        built = {_said(values): _build(spec.arguments, values) for values in ends}
        fit.check(cli)
        data, model = cli.build()
        cli.make_trainer(callbacks=None, logger=False, enable_checkpointing=False)
        for stage in ("fit", "test") if spec.test else ("fit",):
            config.load(data, stage)
        if spec.stacked:
            stacked.check(cli, data, model, built)
        send(pipe, ("done", _facts(spec, cli, data)))
    except UserError as error:
        send(pipe, ("refused", str(error)))
    except BaseException as error:
        traceback.print_exc()
        send(pipe, ("failed", _reason(error)))


def _facts(spec: Spec, cli: LitlabCLI, data: LightningDataModule) -> dict[str, Any]:
    """What a controller needs to know of an experiment, as plain values."""
    devices = cli.config.trainer.devices
    return {
        "values": config.flatten(cli.resolved()),
        "params": cli.params(),
        "hash": config.config_hash(cli.resolved()),
        "max_epochs": cli.config.trainer.max_epochs,
        "devices": devices if isinstance(devices, int) else 1,
        "tracking_uri": cli.config.tracking_uri,
        "run_name": fit.run_name(spec.arguments, spec.seed),
        "tags": fit.tags(cli, shlex.join(["litlab", spec.verb, *spec.arguments])),
        "card": data.describe() if spec.test and isinstance(data, InMemoryDataModule) else None,
    }


def _build(arguments: list[str], values: dict[str, Any]) -> LightningModule:
    try:
        return config.parse("sweep", [*arguments, *as_arguments(values)]).build()[1]
    except UserError as error:
        raise UserError(f"space: {_said(values)}: {error}") from error


def _said(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value!r}" for key, value in values.items())


def _train(spec: Spec, pipe: connection.Connection | None) -> dict[str, float]:
    """Train, and keep the run as `litlab fit` does; returns its metrics at the selected epoch."""
    quiet.lightning()
    cli: LitlabCLI = config.parse("sweep", spec.command)
    reporter = Reporter(spec.metric, pipe)
    job = fit.prepare(cli, [reporter], test=spec.test)
    interrupt.exit_on_sigterm()
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        fit.run_trainer(job)
        return {}
    assert pipe is not None
    run = make_run(spec, cli)
    send(pipe, ("run", run.run_id))
    with recorded(run):
        seconds = fit.train(job, run)
        if reporter.pruned_at is not None:
            raise StoppedError(f"pruned after epoch {reporter.pruned_at} ({spec.pruner})")
        fit.keep(job, run, seconds, test=spec.test)
    return selected(run)


def make_run(spec: Spec, cli: LitlabCLI, more: Mapping[str, str] | None = None) -> Run:
    """The training's run, with more tags if they are given."""
    tags = {**fit.tags(cli, shlex.join(["litlab", "fit", *spec.command])), **spec.tags, **(more or {})}
    try:
        return Run(Store(spec.uri), spec.experiment, spec.name or fit.run_name(spec.arguments, spec.seed), tags)
    except UserError as error:  # the store is away
        raise RefusedError(str(error)) from error


def selected(run: Run) -> dict[str, float]:
    """A finished run's metrics at the selected epoch."""
    return run.metrics_at(max(at for at, metrics in run.history if "selected_epoch" in metrics))


def _baseline(spec: Spec) -> dict[str, float]:
    """What `litlab baseline` does; its runs say for themselves what came out."""
    from pipelines import baseline

    return _call(baseline.main, spec, [*spec.command, "--name", spec.experiment])


def _explain(spec: Spec) -> dict[str, float]:
    """What `litlab explain` does; picture and numbers are kept in the look's own run."""
    from pipelines import explain

    with tempfile.TemporaryDirectory(prefix="litlab-look-") as folder:
        return _call(explain.main, spec, [*spec.arguments, "--out", folder])


def _call(main: Callable[[str, list[str]], int], spec: Spec, argv: list[str]) -> dict[str, float]:
    os.environ["MLFLOW_TRACKING_URI"] = spec.uri
    if code := main(spec.verb, argv):
        raise RuntimeError(f"litlab {spec.verb} ended with exit code {code}")
    return {}


OTHERS = {"baseline": _baseline, "explain": _explain}


def settle(spec: Spec) -> None:
    """Make this process one of its own: its group, its output, its share of the machine, and its end."""
    os.setsid()  # Ctrl-C is for the controller, which tells its children
    process.end_with_first()
    try:
        log = os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    except FileNotFoundError:  # the controller has gone, and its folder
        sys.exit(1)
    for stream in (1, 2):
        os.dup2(log, stream)
    if gpus := visible_gpus(spec, torch.cuda.device_count()):
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    share = max(1, spec.threads // spec.devices)
    os.environ["OMP_NUM_THREADS"] = str(share)  # for further devices' processes
    torch.set_num_threads(share)
    threading.Thread(target=_end_with_controller, daemon=True).start()


def _end_with_controller() -> None:
    """Stop as on SIGTERM when the controller is gone; at once if that takes too long."""
    controller = parent_process()
    if controller is None:
        return
    controller.join()
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(GRACE_S)
    os.killpg(os.getpid(), signal.SIGKILL)


def send(pipe: connection.Connection, message: tuple[Any, ...]) -> None:
    """Tell the controller something, if it is still there."""
    with contextlib.suppress(OSError):  # the controller may have gone
        pipe.send(message)


def _reason(error: BaseException) -> str:
    said = str(error).strip().splitlines()
    if isinstance(error, UserError | FloatingPointError):
        return said[0] if said else type(error).__name__
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


if __name__ == "__main__":  # a further device of a training on several
    process.end_with_first()
    _train(Spec(**json.loads(Path(sys.argv[1]).read_text())), None)

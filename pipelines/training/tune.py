"""Suggest a learning rate or a batch size for an experiment, with Lightning's Tuner."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from lightning.pytorch.tuner.tuning import Tuner

from datamodules.in_memory import InMemoryDataModule
from pipelines.config.bare_trainer import bare_trainer
from pipelines.config.cli import LitlabCLI, parse_config
from pipelines.config.error_messages import refusals
from pipelines.config.experiments import config_arguments
from pipelines.config.identity import flatten_config
from pipelines.evaluation.plots import panels
from pipelines.runtime.errors import UserError
from pipelines.runtime.signals import exit_on_sigterm, reraise_keyboard_interrupt
from pipelines.runtime.silence import hidden_warnings, silence_lightning
from pipelines.runtime.text import format_command
from pipelines.tracking.endings import recorded
from pipelines.tracking.run import Run
from pipelines.tracking.store import Store
from pipelines.training.progress_bar import quiet_searches
from pipelines.training.run_metadata import run_tags

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = list[tuple[float, float]]
Subject = Literal["lr", "batch_size"]
USUAL_KEYS: Mapping[Subject, tuple[str, ...]] = {
    "lr": ("model.lr", "model.learning_rate", "model.optimizer.lr"),
    "batch_size": ("data.batch_size", "model.batch_size"),
}
HIGHEST: Mapping[Subject, float] = {"lr": 1.0, "batch_size": 8192}


@dataclass(frozen=True)
class Suggestion:
    """A suggested value of a key.

    Attributes:
        key: The key, such as "model.optimizer.lr".
        value: Its suggested value.
        given: Its value in the configuration.
        command: Trains with the suggested value.
        run_id: The run that recorded it.
        experiment: MLflow experiment of that run.
        tracking_uri: Where the run is stored.
    """

    key: str
    value: float
    given: Any
    command: str
    run_id: str
    experiment: str
    tracking_uri: str


def tune(
    subject: Subject,
    experiment: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    key: str | None = None,
    low: float = 1e-8,
    high: float | None = None,
    steps: int = 100,
    tracking_uri: str | None = None,
) -> Suggestion:
    """Suggest a learning rate, or the largest batch size that fits, and record it in one run. Nothing else is trained.

    Args:
        subject: "lr": raise the learning rate from `low` to `high`, and take the one at which the loss falls fastest.
            "batch_size": double it while the memory suffices, up to `high`.
        experiment: Name of an experiment or path of a YAML file; None if the overrides name it.
        overrides: Other values for keys, as on the command line.
        key: The key of the configuration; by default it is found among the keys of model and data.
        low: The lowest learning rate.
        high: The highest learning rate, by default 1, or batch size, by default 8192.
        steps: Training steps of the search for a learning rate.
        tracking_uri: Where the run is stored; by default the project's mlflow.db.

    Raises:
        UserError: The configuration is invalid, there is no such key, or the search is not possible.
    """
    silence_lightning()
    high = HIGHEST[subject] if high is None else high
    if not 0 < low < high or steps < 1:
        raise UserError(f"--min {low:g} must be positive and below --max {high:g}, and --steps {steps} 1 or more")
    arguments = config_arguments(experiment, overrides, tracking_uri)
    cli = parse_config("tune", arguments)
    values = flatten_config(cli.resolved())
    key = find_key(subject, values, key)
    exit_on_sigterm()
    curve: Curve = []
    value: float
    if subject == "lr":
        curve, value = _search_lr(cli, low, high, steps)
    else:
        value = _search_batch_size(cli, key, int(high))
    text = f"{value:.3g}" if subject == "lr" else str(value)
    store, name = Store(cli.config.tracking_uri), f"{cli.config.name}-tune"
    run = Run(store, name, f"{key}={text}", run_tags(cli, "tune", [subject, *arguments]))
    with recorded(run):
        run.save_config(cli.resolved())
        run.log_params({"tune": subject, "key": key, **cli.params()})
        for step, (lr, loss) in enumerate(curve):
            run.log_metrics({"lr": lr, "loss": loss}, step)
        run.log_metrics({"suggestion": value}, max(0, len(curve) - 1))
        if curve:
            run.save_figure("loss_by_learning_rate", _draw(curve, value))
    command = format_command("fit", [*arguments, f"--{key}", text])
    return Suggestion(key, float(text), values[key], command, run.run_id, name, store.uri)


def find_key(subject: Subject, values: Mapping[str, Any], key: str | None = None) -> str:
    """Return the key of a learning rate or batch size.

    Args:
        subject: "lr" or "batch_size".
        values: A configuration, as flat keys.
        key: The key that the user named, if any.

    Raises:
        UserError: There is no such key, or it is not clear which one is meant.
    """
    last = {name.rpartition(".")[2] for name in USUAL_KEYS[subject]}
    found = [name for name in values if name.partition(".")[0] in ("model", "data")]
    candidates = [name for name in found if name.rpartition(".")[2] in last]
    if key is not None:
        if key not in values:
            raise UserError(f"--key {key}: there is no such key; the keys are {', '.join(candidates or found)}")
        return key
    if usual := [name for name in USUAL_KEYS[subject] if name in candidates]:
        return usual[0]
    if len(candidates) != 1:
        reason = f"it could be {' or '.join(candidates)}" if candidates else f"the keys are {', '.join(found)}"
        raise UserError(f"no key of the {subject} was found: name it with --key; {reason}")
    return candidates[0]


def _search_lr(cli: LitlabCLI, low: float, high: float, steps: int) -> tuple[Curve, float]:
    """Return the learning rates that were tried, with the smoothed loss of each, and the one that is suggested."""
    with refusals(), tempfile.TemporaryDirectory() as folder:
        data, model = cli.build()
        trainer = _bare_trainer(cli, folder, steps)
        quiet_searches(model, trainer, cli.config.trainer.enable_progress_bar)
        in_memory = isinstance(data, InMemoryDataModule)
        with hidden_warnings(in_memory=in_memory), reraise_keyboard_interrupt(trainer):
            found = Tuner(trainer).lr_find(
                model, datamodule=data, min_lr=low, max_lr=high, num_training=steps, update_attr=False
            )
    assert found is not None
    curve = list(zip(found.results["lr"], found.results["loss"], strict=True))
    return curve, steepest(curve)


def steepest(curve: Curve, skip_begin: int = 10, skip_end: int = 1) -> float:
    """Return the learning rate at which the loss falls fastest when the rate is raised by a factor.

    Lightning 2.6 divides by the difference of the rates instead, and so suggests one of the lowest.

    Args:
        curve: Learning rates, rising, with the loss of each.
        skip_begin: Points at the beginning that are left out, as in Lightning: the smoothed loss is not yet reliable.
        skip_end: Points at the end that are left out.

    Raises:
        UserError: There are too few points.
    """
    kept = [(lr, loss) for lr, loss in curve[skip_begin:-skip_end] if math.isfinite(loss)]
    if len(kept) < 2:
        raise UserError(f"{len(curve)} steps are too few for a suggestion: give more with --steps, or a lower --max")
    rates, losses = zip(*kept, strict=True)
    slopes = np.gradient(np.array(losses), np.log(rates))
    return float(rates[int(slopes.argmin())])


def _search_batch_size(cli: LitlabCLI, key: str, most: int) -> int:
    """Return the largest batch size that fits."""
    with refusals(), tempfile.TemporaryDirectory() as folder:
        data, model = cli.build()
        trainer = _bare_trainer(cli, folder, 3)  # as many as the search takes for each size
        name = key.rpartition(".")[2]
        in_memory = isinstance(data, InMemoryDataModule)
        with hidden_warnings(in_memory=in_memory), reraise_keyboard_interrupt(trainer):
            found = Tuner(trainer).scale_batch_size(model, datamodule=data, batch_arg_name=name, max_val=most)
    assert found is not None
    return found


def _bare_trainer(cli: LitlabCLI, folder: str, steps: int) -> Any:
    """Return a trainer that only trains for some steps, of however many epochs.

    Lightning keeps the initial weights in the folder during a search.
    """
    options: dict[str, Any] = {"limit_val_batches": 0, "num_sanity_val_steps": 0, "max_epochs": -1, "max_steps": steps}
    return bare_trainer(cli, default_root_dir=folder, **options)


def _draw(curve: Sequence[tuple[float, float]], value: float) -> "Figure":
    """Plot loss against learning rate, with the suggested one."""
    figure, (axis,) = panels(1, size=(6, 4))
    rates, losses = zip(*curve, strict=True)
    axis.plot(rates, losses, color="black", linewidth=1)
    axis.axvline(value, color="0.5", linestyle=":", label=f"suggestion: {value:.3g}")
    axis.set(xscale="log", xlabel="learning rate", ylabel="training loss (smoothed)")
    axis.legend()
    return figure

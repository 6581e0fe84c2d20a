"""Values that BatchSizeFinder and LearningRateFinder find before the first step: a run records those that it used."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from pipelines.config.callbacks import SEARCHING
from pipelines.config.identity import flatten_config
from pipelines.runtime.hooks import replace_hook
from pipelines.tracking.run import Run
from pipelines.tracking.tags import FOUND_TAG
from pipelines.training.job import Training
from pipelines.training.run_metadata import identity_tags, log_inputs


def log_values_used(training: Training, run: Run) -> None:
    """Log configuration and data: now, or after the searches of callbacks, with the values that they found.

    The searches do not change the random numbers of the training. So a run with the values found, which does not search
    again, is the same training. Runs of earlier versions have the values before the search, and search again when they
    are resumed.
    """
    searching = [callback for callback in training.cli.callbacks if isinstance(callback, SEARCHING)]
    if run.params or not searching:
        log_inputs(training.cli, training.data, run)
        return

    def search(original: Callable[..., None], trainer: Trainer, module: LightningModule, *, is_last: bool) -> None:
        before = _current_values(training)
        with isolate_rng():
            original(trainer, module)
        for key, value in _current_values(training).items():
            if value != before[key]:
                found[key] = value
                training.cli.set_value(key, value)
        if is_last:
            run.set_tags({FOUND_TAG: json.dumps(found), **identity_tags(training.cli)})
            log_inputs(training.cli, training.data, run)

    found: dict[str, Any] = {}
    for callback in searching:
        replace_hook(callback, "on_fit_start", partial(search, is_last=callback is searching[-1]))


def _current_values(training: Training) -> dict[str, Any]:
    """Return what data module and module have, as attributes or hyperparameters, for numbers of the configuration."""
    values: dict[str, Any] = {}
    parts = {"data": training.data, "model": training.model}
    for key, given in flatten_config(training.cli.resolved()).items():
        section, _, name = key.partition(".")
        part = parts.get(section)
        if part is None or isinstance(given, bool) or not isinstance(given, float | int | None):
            continue
        value = getattr(part, name, part.hparams.get(name))
        values[key] = value.item() if isinstance(value, np.number) else value
    return values

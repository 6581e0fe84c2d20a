"""Values that BatchSizeFinder and LearningRateFinder find before the first step: a run records those that it used."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
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
    searches = _Searches(training, run)
    if run.params:  # it is resumed
        log_inputs(training.cli, training.data, run)
    elif is_overridden("configure_callbacks", training.model):
        replace_hook(training.model, "configure_callbacks", searches.begin_with_callbacks_of_module)
    else:
        searches.begin([])


def remove_searches(module: LightningModule) -> None:
    """Remove callbacks that search from those that a module itself returns."""

    def remove(original: Callable[[], Any]) -> list[Callback]:
        return [callback for callback in _as_list(original()) if not isinstance(callback, SEARCHING)]

    replace_hook(module, "configure_callbacks", remove)


class _Searches:
    """The searches of a training that starts."""

    def __init__(self, training: Training, run: Run) -> None:
        self._training, self._run = training, run
        self._found: dict[str, Any] = {}

    def begin_with_callbacks_of_module(self, original: Callable[[], Any]) -> list[Callback]:
        own = _as_list(original())
        self.begin(own)
        return own

    def begin(self, own: Sequence[Callback]) -> None:
        """Log configuration and data, unless a callback of the configuration or of the module searches."""
        training = self._training
        searching = [callback for callback in (*training.cli.callbacks, *own) if isinstance(callback, SEARCHING)]
        if not searching:
            log_inputs(training.cli, training.data, self._run)
            return
        for callback in searching:
            replace_hook(callback, "on_fit_start", self._search)
        replace_hook(training.model, "on_fit_start", self._end)  # after the hooks of all callbacks

    def _search(self, original: Callable[..., None], trainer: Trainer, module: LightningModule) -> None:
        before = _current_values(self._training)
        with isolate_rng():
            original(trainer, module)
        for key, value in _current_values(self._training).items():
            if value != before[key]:
                self._found[key] = value
                self._training.cli.set_value(key, value)

    def _end(self, original: Callable[[], None]) -> None:
        training, run = self._training, self._run
        run.set_tags({FOUND_TAG: json.dumps(self._found), **identity_tags(training.cli)})
        log_inputs(training.cli, training.data, run)
        original()


def _as_list(callbacks: Callback | Sequence[Callback]) -> list[Callback]:
    return [callbacks] if isinstance(callbacks, Callback) else list(callbacks)


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

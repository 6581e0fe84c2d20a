"""Tests of a finished run after its training: each is a look at the test set, which the run records."""

import time
from collections.abc import Sequence

from datamodules.in_memory import InMemoryDataModule
from pipelines.config.identity import config_hash
from pipelines.evaluation.load_run import LoadedRun
from pipelines.tracking.ledger import look_of, record_look

_SAME_RESULT = ("--data.data_dir", "--trainer.accelerator")


def changes_nothing(overrides: Sequence[str]) -> bool:
    """Return whether overrides change neither the model nor the examples."""
    keys = (token.partition("=")[0] for token in overrides if token.startswith("--"))
    return all(key in _SAME_RESULT for key in keys)


def record_test(loaded: LoadedRun, overrides: Sequence[str]) -> None:
    """Record that a run was measured on its test set, for the ledger of that test set.

    Nothing is recorded if its data module has not read the test set, or is not litlab's and tells no digest.

    Args:
        loaded: The run that was measured.
        overrides: What the evaluation changed in its configuration.
    """
    run, data = loaded.run, loaded.data
    if run is not None and isinstance(data, InMemoryDataModule) and "test_set" in vars(data):
        look = look_of(run) if changes_nothing(overrides) else config_hash(loaded.cli.resolved())
        record_look(run, data.test_set.digest(), look, int(time.time() * 1000))

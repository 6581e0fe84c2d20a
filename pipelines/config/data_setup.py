"""Set a data module up once per process and stage, with the same random numbers each time.

A data module may draw its split in `setup`. Lightning calls `setup` again for the test, and so does every other command
on the run. Here all these calls draw from the run's seed, so that there is one split.
"""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.seed import isolate_rng

from pipelines.config.error_messages import refusals
from pipelines.runtime.hooks import replace_hook

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader")
_STREAM = 1  # tells the random numbers of a data module from those of other purposes with the same seed


def set_up_once(data: LightningDataModule, seed: int) -> None:
    """Make `prepare_data` run once, and `setup` once per stage until its `teardown`, with random numbers of the seed.

    What the methods do later has no effect on the random numbers of the training.

    Args:
        data: Any data module, before it is set up.
        seed: Seed of the run.
    """
    done: set[tuple[str, str | None]] = set()

    def teardown(original: Callable[..., Any], stage: str | None = None) -> None:
        done.discard(("setup", _name(stage)))
        original(stage=stage)

    replace_hook(data, "prepare_data", _once("prepare_data", done, seed))
    replace_hook(data, "setup", _once("setup", done, seed))
    replace_hook(data, "teardown", teardown)
    draw_alike(data, seed)


def draw_alike(source: LightningDataModule | LightningModule, seed: int) -> None:
    """Make the methods that return loaders draw the same random numbers: a split that is drawn there is one split."""
    calls: set[str] = set()

    def repeatable(name: str) -> Callable[..., Any]:
        def call(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if name == "train_dataloader" and name in calls:  # reloaded in each epoch: perhaps another sample
                return original(*args, **kwargs)
            calls.add(name)
            with isolate_rng():
                _seed(seed)
                return original(*args, **kwargs)

        return call

    for name in LOADERS:
        replace_hook(source, name, repeatable(name))


def _once(name: str, done: set[tuple[str, str | None]], seed: int) -> Callable[..., None]:
    def call(original: Callable[..., Any], stage: str | None = None) -> None:
        key = _name(stage)
        if (name, key) in done or (key == "validate" and (name, "fit") in done):
            return
        with isolate_rng():
            _seed(seed)
            original(stage=stage) if name == "setup" else original()
        done.add((name, key))

    return call


def _name(stage: str | None) -> str | None:
    """Return the name of a stage, which Lightning gives as a member of an enumeration."""
    return getattr(stage, "value", stage)


def _seed(seed: int) -> None:
    torch_seed, numpy_seed, python_seed = np.random.SeedSequence((seed, _STREAM)).generate_state(3)
    torch.manual_seed(int(torch_seed))
    np.random.seed(numpy_seed)
    random.seed(int(python_seed))


def load_data(data: LightningDataModule, stage: str, *, download: bool = True) -> None:
    """Load the data of a stage ("fit" or "test"), before a run is created, and download them if they are missing.

    Raises:
        UserError: A file is missing or damaged; the message names it.
    """
    with refusals(wrapped=False):
        if download:
            data.prepare_data()
        data.setup(stage)

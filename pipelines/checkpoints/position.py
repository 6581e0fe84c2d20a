"""Where a training stands in its training data, so that it resumes in the middle of an epoch.

A loader is asked for the same batches again, as many as were trained on. With the random state of the beginning of the
epoch it draws the same order and its workers get the same seeds. The batches are read, but nothing is computed.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, IterableDataset

from pipelines.checkpoints.random_state import RandomState, get_random_state, set_random_state
from pipelines.runtime.hooks import replace_hook


class TrainingPosition:
    """The position in the loader that a data module, or a module with its own loaders, returns for training.

    Attributes:
        inexact: Why a training cannot resume exactly in the middle of an epoch; "" if it can.
    """

    def __init__(self) -> None:
        self.inexact = ""
        self._loader: DataLoader[Any] | None = None
        self._generators_at_start: dict[str, Any] = {}
        self._random_at_start: RandomState | None = None
        self._random_at_first: RandomState | None = None
        self._to_restore: dict[str, Any] | None = None

    def follow(self, source: LightningDataModule | LightningModule) -> None:
        """Follow the loaders that `source.train_dataloader` returns from now on."""

        def followed(original: Callable[[], Any]) -> Any:
            return self._watch(original())

        replace_hook(source, "train_dataloader", followed)

    def state(self, epoch: int, batches: int) -> dict[str, Any]:
        """Return the position after some batches of an epoch."""
        return {
            "epoch": epoch,
            "batches": batches,
            "at_start": self._random_at_start,
            "at_first": self._random_at_first,
            "now": get_random_state(),
            "generators_at_start": self._generators_at_start,
            "generators": self.generators(),
        }

    def generators(self) -> dict[str, Any]:
        """Return the state of each random generator of the loader, its samplers and its data, by name."""
        return {name: _state_of(generator) for name, generator in _own_generators(self._loader)}

    def set_generators(self, states: dict[str, Any]) -> None:
        """Restore what `generators` returned."""
        for name, generator in _own_generators(self._loader):
            if name in states:
                _set_state(generator, states[name])

    def restore(self, state: dict[str, Any]) -> None:
        """Continue at a position in the next epoch that begins."""
        self._to_restore = state

    def _watch(self, loaders: Any) -> Any:
        self.inexact = _why_inexact(loaders)
        if isinstance(loaders, DataLoader) and not isinstance(loaders.dataset, IterableDataset):
            self._loader = loaders
            if not isinstance(loaders, _Watched):  # the same loader may be returned again
                loaders.__class__ = type(type(loaders).__name__, (_Watched, type(loaders)), {})
            watched: Any = type(loaders)
            watched.position = self
        return loaders

    def batches_of(self, new_iterator: Callable[[], Iterator[Any]], loader: "DataLoader[Any]") -> Iterator[Any]:
        """Return an iterator over the rest of an epoch: all of it, unless a position is to be restored."""
        state, self._to_restore = self._to_restore, None
        self._loader = loader  # Lightning may have replaced the one that it was given
        if state is not None and state["at_start"] is not None:
            set_random_state(state["at_start"])
            self.set_generators(state["generators_at_start"])
            _set_epoch(loader, state["epoch"])
        self._random_at_start, self._generators_at_start = get_random_state(), self.generators()
        iterator = new_iterator()
        return self._iterate(iterator, state)

    def _iterate(self, iterator: Iterator[Any], state: dict[str, Any] | None) -> Iterator[Any]:
        if state is not None and state["at_first"] is not None:
            set_random_state(state["at_first"])
        self._random_at_first = get_random_state()
        if state is not None:
            for _ in range(state["batches"]):
                next(iterator)
            set_random_state(state["now"])
            self.set_generators(state["generators"])
        yield from iterator


class _Watched(DataLoader[Any]):
    """A loader whose position is followed; see `TrainingPosition`."""

    position: TrainingPosition

    def __iter__(self) -> Any:
        return self.position.batches_of(super().__iter__, self)


def _set_epoch(loader: "DataLoader[Any]", epoch: int) -> None:
    """Tell the samplers of a loader the epoch, as Lightning does at its start."""
    batch_sampler = loader.batch_sampler
    for sampler in (loader.sampler, batch_sampler, getattr(batch_sampler, "sampler", None)):
        if callable(set_epoch := getattr(sampler, "set_epoch", None)):
            set_epoch(epoch)


def _own_generators(loader: "DataLoader[Any] | None") -> Iterator[tuple[str, Any]]:
    """Yield the random generators of a loader, its samplers and its data, each with its name."""
    if loader is None:
        return
    batch_sampler = loader.batch_sampler
    owners = {
        "loader": loader,
        "sampler": loader.sampler,
        "batch_sampler": batch_sampler,
        "batch_sampler.sampler": getattr(batch_sampler, "sampler", None),
        "dataset": loader.dataset,
    }
    for owner, part in owners.items():
        for name, value in getattr(part, "__dict__", {}).items():
            if isinstance(value, torch.Generator | np.random.Generator | np.random.RandomState | random.Random):
                yield f"{owner}.{name}", value


def _state_of(generator: Any) -> Any:
    """Return the state of a random generator as tensors and plain values."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return _plain(generator.get_state(legacy=False))
    return _plain(generator.bit_generator.state)


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        version, numbers, gauss = state
        generator.setstate((version, tuple(numbers), gauss))
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state


def _plain(state: Any) -> Any:
    """Return the state of one of NumPy's generators with lists in place of arrays, which it accepts as well."""
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state


def _why_inexact(loaders: Any) -> str:
    """Return why the rest of an epoch would see other batches after a restart; "" if it sees the same."""
    if not isinstance(loaders, DataLoader):
        return "the training data are not one DataLoader"
    if isinstance(loaders.dataset, IterableDataset):
        return "the training data are a stream, which starts again"
    if loaders.num_workers and loaders.persistent_workers:
        return "the random state of persistent workers is lost"
    return ""

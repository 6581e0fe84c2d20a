"""Find examples that are in two sets: training examples in the validation or test set.

Only data that can tell are compared: the indices of subsets of one dataset object, and the content of tensors, arrays
and files before augmentation.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger

TIME_LIMIT_S = 5.0
REPETITIVE = 0.1  # fraction of equal examples in the training set from which equal content means nothing
MAX_SHOWN = 3  # equal examples that are named


@dataclass(frozen=True)
class ExampleSet:
    """The examples of a loader.

    Attributes:
        name: "training", "validation" or "test".
        parts: Dataset objects, each with the indices in use.
    """

    name: str
    parts: list[tuple[Any, Sequence[int]]]

    def shared_indices(self, other: "ExampleSet") -> int:
        """Return how many examples are the same index of the same dataset object in both sets."""
        own: dict[int, set[int]] = {}
        for dataset, indices in self.parts:  # of folds, one dataset has several parts
            own.setdefault(id(dataset), set()).update(indices)
        return sum(
            len(own[id(dataset)].intersection(indices)) for dataset, indices in other.parts if id(dataset) in own
        )


@dataclass
class LeakGuard(Callback):
    """Refuse examples that were trained on in the validation and test set, and warn of equal content.

    Attributes:
        results: What was found, by the name of the evaluated set.
    """

    results: dict[str, str] = field(default_factory=dict)
    _training: ExampleSet | None = None
    _hashes: dict[int, int] = field(default_factory=dict)

    def before_training(self, trainer: Trainer) -> None:
        """Compare the training and the validation set. No callback calls it: each costs 1 % at batch 64."""
        if trainer.is_global_zero and not trainer.overfit_batches:  # type: ignore[attr-defined]
            self._training = example_set("training", trainer.train_dataloader)
            self._check("validation", trainer.val_dataloaders)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._check("test", trainer.test_dataloaders)

    def _check(self, name: str, loaders: Any) -> None:
        first = (
            loaders[0] if isinstance(loaders, Sequence) and loaders else loaders
        )  # others may measure the training set
        evaluated = example_set(name, first)
        if self._training is None or evaluated is None:
            return
        if shared := self._training.shared_indices(evaluated):
            total = sum(len(indices) for _, indices in evaluated.parts)
            raise UserError(
                f"{shared} of {total} {name} examples are training examples: the same indices of the same dataset "
                "(--leak_check false trains and tests with them)"
            )
        self.results[name] = self._compare_content(evaluated)

    def _compare_content(self, evaluated: ExampleSet) -> str:
        """Warn of examples whose content is equal to that of a training example; return what was found."""
        assert self._training is not None
        deadline = time.monotonic() + TIME_LIMIT_S
        if not self._hashes:
            self._hashes = {value: index for index, value in enumerate(_hashes(self._training, deadline))}
        count = sum(len(indices) for _, indices in self._training.parts)
        if not self._hashes:
            return "not compared"
        if len(self._hashes) < (1 - REPETITIVE) * count and time.monotonic() < deadline:
            return "not compared: the training examples repeat"
        hashes = list(_hashes(evaluated, deadline + TIME_LIMIT_S))
        equal = [index for index, value in enumerate(hashes) if value in self._hashes]
        if not equal:
            return f"none of {len(hashes)} equals a training example"
        shown = ", ".join(f"{index} (training {self._hashes[hashes[index]]})" for index in equal[:MAX_SHOWN])
        result = f"{len(equal)} of {len(hashes)} have the content of a training example: {shown}"
        logger.warning("%s examples: %s%s", evaluated.name, result, ", ..." if len(equal) > MAX_SHOWN else "")
        return result


def example_set(name: str, loader: Any) -> ExampleSet | None:
    """Return the examples of a loader over a map-style dataset; None where it is not known which ones it draws."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    indices = _indices(loader)
    return None if indices is None else ExampleSet(name, list(_parts(loader.dataset, indices)))


def _indices(loader: "DataLoader[Any]") -> Sequence[int] | None:
    """Return the indices that a loader draws; None for a user-defined sampler, which may draw any."""
    batch_sampler: Any = loader.batch_sampler
    if batch_sampler is not None and type(batch_sampler) is not BatchSampler:
        return None
    sampler: Any = loader.sampler if batch_sampler is None else batch_sampler.sampler
    if isinstance(sampler, SubsetRandomSampler):
        return sampler.indices
    dataset: Any = loader.dataset
    of_all = isinstance(sampler, SequentialSampler | RandomSampler)
    of_all |= isinstance(sampler, DistributedSampler) and sampler.dataset is dataset
    return range(len(dataset)) if of_all else None


def _parts(dataset: "Dataset[Any]", indices: Sequence[int]) -> Iterator[tuple[Any, Sequence[int]]]:
    """Yield the dataset objects behind subsets and concatenations, each with the indices in use."""
    if isinstance(dataset, Subset):
        yield from _parts(dataset.dataset, [dataset.indices[index] for index in indices])
    elif isinstance(dataset, ConcatDataset):
        starts = [0, *dataset.cumulative_sizes]
        for part, start, end in zip(dataset.datasets, starts, starts[1:], strict=False):
            yield from _parts(part, [index - start for index in indices if start <= index < end])
    else:
        yield dataset, indices


def _hashes(examples: ExampleSet, deadline: float) -> Iterator[int]:
    """Yield a hash of each example's content, until the deadline; nothing if the data cannot tell."""
    for dataset, indices in examples.parts:
        content = _content(dataset)
        if content is None:
            return
        for number, index in enumerate(indices):
            if number % 64 == 0 and time.monotonic() > deadline:
                return
            item = content[index]
            yield hash(item.read_bytes() if isinstance(item, Path) else item.tobytes())


def _content(dataset: Any) -> Any:
    """Return the raw inputs of a dataset as an array or a list of files; None if it has neither."""
    if isinstance(dataset, TensorDataset):
        return _as_array(dataset.tensors[0])
    data = getattr(dataset, "data", None)  # torchvision's MNIST and CIFAR10
    if isinstance(data, torch.Tensor):
        data = _as_array(data)
    if isinstance(data, np.ndarray) and data.ndim > 1 and len(data) == len(dataset):
        return data
    samples = getattr(dataset, "samples", None)  # torchvision's ImageFolder
    if isinstance(samples, list) and len(samples) == len(dataset) and samples and isinstance(samples[0], tuple):
        return [Path(sample[0]) for sample in samples] if isinstance(samples[0][0], str) else None
    return None


def _as_array(tensor: Tensor) -> "np.ndarray[Any, Any] | None":
    """Return a tensor on any device as an array; None for a type or a layout that NumPy has not."""
    try:
        return tensor.detach().cpu().numpy()
    except (TypeError, RuntimeError):
        return None

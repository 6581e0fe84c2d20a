"""The loader of sets that are held in memory, on the CPU or on the GPU that trains with them."""

from collections.abc import Iterator
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader

from datamodules.sampling import PAD_INDEX, EpochSampler
from datamodules.sets import Batch, TensorSet

Device = Literal["auto", "cpu", "cuda"]
DEVICES: tuple[Device, ...] = get_args(Device)
AUTO_SHARE = 0.25
"""Share of the GPU's free memory that a set may take to be held there by default."""


@runtime_checkable
class MakesBlocks(Protocol):
    """A callback with which a training makes several steps at a time: see `modules.speed.CudaGraph`."""

    batches_at_once: int


def batches_at_once(trainer: Trainer | None) -> int:
    """Return how many training batches a loader yields as one."""
    callbacks: list[Any] = [] if trainer is None else trainer.callbacks  # type: ignore[attr-defined]
    return max((callback.batches_at_once for callback in callbacks if isinstance(callback, MakesBlocks)), default=1)


class WholeBatchLoader(DataLoader[Batch]):
    """DataLoader that takes whole batches from a `TensorSet`, in the order of an `EpochSampler`.

    The order is drawn on the CPU, so that it is the same for every device. It is copied once per epoch to the device of
    the examples, without waiting for it. With another sampler or dataset, which Lightning may put in their places, this
    is an ordinary DataLoader.

    Attributes:
        held: The dataset, on the device from which batches are taken; None stands for `dataset`.
        pins: Whether batches are placed in page-locked memory, so that copies to a GPU are asynchronous.
    """

    held: TensorSet | None = None
    pins: bool = False

    def __iter__(self) -> Any:
        dataset, sampler = self.dataset, self.sampler
        if not isinstance(dataset, TensorSet) or type(dataset).__getitems__ is not TensorSet.__getitems__:
            return super().__iter__()
        if not isinstance(sampler, EpochSampler) or type(self.batch_sampler) is not BatchSampler:
            return super().__iter__()
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)  # as DataLoader, which seeds its workers
        return self._batches(self.held or dataset, sampler)

    def _batches(self, examples: TensorSet, sampler: EpochSampler) -> Iterator[Batch]:
        assert self.batch_size is not None
        padded = sampler.indices()
        order = _copy_to(padded[padded != PAD_INDEX], examples.inputs.device)
        for start in range(0, len(padded), self.batch_size):
            batch = examples.select(order[start : start + self.batch_size])
            yield tuple(part.pin_memory() for part in batch) if self.pins else batch


def _copy_to(indices: Tensor, device: torch.device) -> Tensor:
    return indices if device.type == "cpu" else indices.pin_memory().to(device, non_blocking=True)


class HeldSets:
    """The sets of a data module, each where its batches are taken from. The loaders of a set share it.

    Args:
        choice: Where sets are held during training; see `place`.
    """

    def __init__(self, choice: Device) -> None:
        self._choice = choice
        self._held: dict[int, tuple[TensorSet, TensorSet]] = {}

    def attach(self, loader: WholeBatchLoader, trainer: Trainer) -> None:
        """Let a loader take its batches from a set that is on the device of the trainer, if it runs."""
        dataset, device = loader.dataset, trainer.strategy.root_device
        if trainer.state.fn is None or not isinstance(dataset, TensorSet):
            return
        original, held = self._held.get(id(dataset), (None, dataset))
        if original is not dataset or held.inputs.device not in (device, dataset.inputs.device):
            # a run that was trained on a GPU can be tested without one
            choice = "auto" if self._choice == "cuda" and trainer.state.fn != "fit" else self._choice
            held = place(dataset, choice, device)
            self._held[id(dataset)] = dataset, held
        loader.held, loader.pins = held, device.type == "cuda" and held is dataset

    def clear(self) -> None:
        """Free what is held on a GPU."""
        self._held.clear()


def place(dataset: TensorSet, choice: Device, device: torch.device) -> TensorSet:
    """Return a set where its batches are taken from: on the GPU that uses it, or as it is.

    Args:
        dataset: The set, on the CPU.
        choice: "auto" holds it on the GPU if it takes less than `AUTO_SHARE` of the free memory.
        device: Where batches are used.

    Raises:
        ValueError: `choice` is "cuda", and there is no GPU, or the set does not fit.
    """
    if device.type != "cuda":
        if choice == "cuda":
            raise ValueError(f"data.device is cuda, but the training runs on {device.type}; use auto")
        return dataset
    free = torch.cuda.mem_get_info(device)[0]
    if choice == "cuda" and dataset.nbytes > free:
        sizes = f"a set takes {dataset.nbytes / 1e9:.2f} GB, and {free / 1e9:.2f} GB of the GPU are free"
        raise ValueError(f"data.device is cuda, but {sizes}; use auto or cpu")
    fits = dataset.nbytes <= free * (1 if choice == "cuda" else AUTO_SHARE)
    return dataset.to(device) if fits and choice != "cpu" else dataset

"""Any of litlab's modules as one, by `torch.func`: the training step of a single model, mapped over all of them.

Shapes: N models, B examples of a batch.
"""

import copy
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, final

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from modules.base import Classifier, Learner, trainer_of
from modules.metrics import SplitMetrics
from modules.stack import Batch, Stack, Updates
from modules.stacked_dropout import Order, Orders, Rates, StackedRates, order_of, unordered

DROPOUTS: tuple[type[nn.Module], ...] = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
AFTER = "-"  # between the number of a layer in an `nn.Sequential`, and that of the dropout after it
COUNTERS = ("current_epoch", "global_step", "is_last_batch", "fit_loop")
"""Attributes of a trainer that change during a training."""


class LaterBatch:
    """Batch index of all stacked steps: not 0, and no other number, as one captured step is that of all batches.

    What a model does with its first batch alone, it has done in `run_first_step`.
    """

    def __eq__(self, other: object) -> bool:
        if other == 0:
            return False
        raise ValueError("its step depends on batch_idx")

    __hash__ = None  # type: ignore[assignment]


class UncountedTrainer:
    """A trainer for stacked steps, whose counters cannot be read: one captured step is that of all epochs."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def __getattr__(self, name: str) -> Any:
        if name in COUNTERS:
            raise ValueError(f"its step depends on {name}")
        return getattr(self._trainer, name)


@final
class FunctionalStack(Stack):
    """N models that differ in parameters, buffers, label smoothing, and the rates of their dropout.

    Args:
        models: Of one class. Their layers are the same, but for dropout in an `nn.Sequential`, which some may have and
            others not.

    Raises:
        ValueError: The models differ, or have a layer that cannot be stacked.
    """

    def __init__(self, models: Sequence[Learner]) -> None:
        super().__init__()
        for one, other in pairwise(structure(model) for model in models):
            if difference := sorted(set(one.items()) ^ set(other.items())):
                raise ValueError("the layers differ: " + ", ".join(f"{path} {layer}" for path, layer in difference[:4]))
        self._models, self._size = list(models), len(models)
        self._orders: list[Order] | None = None  # before the first step
        parameters = [list(model.parameters()) for model in models]
        for number, parts in enumerate(zip(*parameters, strict=True)):
            stacked = _stack([part.detach() for part in parts])
            self.register_parameter(str(number), nn.Parameter(stacked, parts[0].requires_grad))
        buffers = list(zip(*map(_buffers, models), strict=True))
        self._buffers_of_models = [_stack(parts) for parts in buffers]
        for stacked, parts in zip(self._buffers_of_models, buffers, strict=True):
            for part, own in zip(parts, stacked, strict=True):
                part.data = own
        self._steps = (_Steps(_template(models)),)  # a tuple, as its parameters are not the stack's
        self._take_over(list(zip(*parameters, strict=True)))
        self._losses = torch.zeros(self._size, device=next(self.parameters()).device)

    def training_step(
        self, batch: Batch, generators: Sequence[torch.Generator] | None, *, shared: bool
    ) -> tuple[Tensor, Updates]:
        if self._orders is None:
            self._begin(batch, shared=shared)
        losses, updates = self._map("training_step", batch, generators, shared=shared)
        self._losses.copy_(losses.detach())  # in place, as a captured step does it again
        return losses.sum(), updates

    def _begin(self, batch: Batch, *, shared: bool) -> None:
        """Let each model do what it does with its first batch, and see in which order masks are drawn."""
        batches = [batch if shared else tuple(part[number] for part in batch) for number in range(self._size)]
        for model, own in zip(self._models, batches, strict=True):
            if is_overridden("training_step", model, parent=Learner):
                run_first_step(model, own)
        self._orders = self._steps[0].find_orders(batches[0])

    def losses(self) -> Tensor:
        return self._losses

    @torch.no_grad()
    def evaluation_step(self, batch: Batch) -> Updates:
        updates: Updates = self._map("validation_step", batch, None, shared=True)[1]
        return updates

    def _map(
        self, step: str, batch: Batch, generators: Sequence[torch.Generator] | None, *, shared: bool
    ) -> tuple[Tensor, Updates]:
        """Call a step of all models; return the losses, and what each passes to its metrics."""
        (steps,), device = self._steps, batch[0].device
        steps.train(step == "training_step")

        def call(tensors: Sequence[Tensor], model: Tensor, batch: Batch) -> tuple[Tensor, Updates]:
            named = dict(zip(steps.names, tensors, strict=True))
            with StackedRates(model, generators, self._orders or ()):
                return functional_call(steps, named, (step, batch))  # type: ignore[no-any-return]

        mapped: Callable[..., tuple[Tensor, Updates]] = vmap(call, (0, 0, None if shared else 0))
        return mapped([*self.parameters(), *self._buffers_of_models], torch.arange(self._size, device=device), batch)


class _Steps(nn.Module):
    """The steps of a model as a function that returns what they pass to the metrics."""

    def __init__(self, model: Learner) -> None:
        super().__init__()
        self.model, self._recorder = model, _Recorder()
        for name in ("train_metrics", "train_end_metrics", "val_metrics", "test_metrics"):
            setattr(model, name, self._recorder)
        self.names = [f"model.{name}" for name, _ in (*model.named_parameters(), *model.named_buffers())]

    def forward(self, step: str, batch: Batch) -> tuple[Tensor, Updates]:
        self._recorder.updates.clear()
        result = getattr(self.model, step)(batch, LaterBatch())
        loss = result if isinstance(result, Tensor) else result.get("loss", torch.zeros(()))
        return loss, list(self._recorder.updates)

    @torch.no_grad()
    def find_orders(self, batch: Batch) -> list[Order]:
        """Return the order of the dimensions in memory for each call of dropout of one model."""
        self.train()
        orders = Orders()
        with orders:
            self("training_step", batch)
        return orders.found


class _Recorder(nn.Module):
    """Stands for the metrics of a split, and keeps what they are updated with."""

    def __init__(self) -> None:
        super().__init__()
        self.updates: Updates = []

    def update(self, *values: Tensor) -> None:
        self.updates.append(tuple(value.detach() for value in values))


def run_first_step(model: Learner, batch: Batch) -> tuple[Tensor, Updates]:
    """Run the first training step of a model alone, without a change of its weights.

    Returns:
        Its loss, and what it passes to the metrics.
    """
    was_training = model.training
    model.train()
    try:
        with torch.no_grad():
            result = model.training_step(batch, 0)
        updates: Updates = list(model.train_metrics.pending)
    finally:
        model.train(was_training)
        model.train_metrics.reset()
    return result if isinstance(result, Tensor) else result["loss"], updates


def structure(model: nn.Module) -> dict[str, str]:
    """Return the layers in words by their path, without dropout: what models must have in common to be stacked.

    Raises:
        ValueError: A layer cannot be stacked.
    """
    layers: dict[str, str] = {}
    for path, layer in _walk(model):
        if isinstance(layer, _NormBase) and layer.running_mean is not None:
            name = type(layer).__name__
            raise ValueError(f"{name} updates running statistics, and torch.func cannot; it has track_running_stats")
        if isinstance(layer, _DropoutNd):
            if type(layer) not in DROPOUTS:
                raise ValueError(f"{type(layer).__name__} cannot be stacked")
            continue
        own = layer.parameters(recurse=False)
        shapes = [f"{tuple(part.shape)}" + ("" if part.requires_grad else " frozen") for part in own]
        layers[path] = " ".join([f"{type(layer).__name__}({layer.extra_repr()})", *shapes])
    return layers


def _walk(module: nn.Module, path: str = "", seen: set[nn.Module] | None = None) -> Iterator[tuple[str, nn.Module]]:
    """Yield each module but metrics once, with a path that does not depend on the dropout in an `nn.Sequential`."""
    seen = set() if seen is None else seen
    if module in seen or isinstance(module, SplitMetrics):
        return
    seen.add(module)
    yield path, module
    for name, child in _named_children(module):
        yield from _walk(child, f"{path}.{name}" if path else name, seen)


def _named_children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if type(module) is not nn.Sequential:
        yield from module.named_children()
        return
    number = dropouts = 0
    for child in module:
        is_dropout = isinstance(child, _DropoutNd)
        number, dropouts = (number, dropouts + 1) if is_dropout else (number + 1, 0)
        yield f"{number}{AFTER}{dropouts}", child


def _place(name: str) -> tuple[int, ...]:
    """Return what sorts the names of the children of an `nn.Sequential`."""
    return tuple(map(int, name.split(AFTER)))


def _template(models: Sequence[Learner]) -> Learner:
    """Return a copy of the first model whose dropout, and label smoothing, has the rates of all."""
    trainer = trainer_of(models[0])
    template = copy.deepcopy(models[0], {} if trainer is None else {id(trainer): trainer})
    if trainer is not None:
        template.trainer = UncountedTrainer(trainer)  # type: ignore[assignment]
    found = [_dropouts(model) for model in models]
    paths = sorted({path for layers in found for path in layers})
    rates = {path: Rates(layers[path].p if path in layers else 0.0 for layers in found) for path in paths}
    parents = dict(_walk(template))
    for path in (path for path in paths if path not in found[0]):
        parent, _, name = path.rpartition(".")
        sequence = parents[parent]
        assert isinstance(sequence, nn.Sequential)
        names = [_place(other) for other, _ in _named_children(sequence)]
        layer = next(layers[path] for layers in found if path in layers)
        sequence.insert(bisect(names, _place(name)), copy.copy(layer))
    for path, layer in _dropouts(template).items():
        layer.p = rates[path]  # type: ignore[assignment]
    if isinstance(template, Classifier):
        smoothing = Rates(model.hparams.get("label_smoothing", 0.0) for model in models)
        template._label_smoothing = smoothing if len(set(smoothing)) > 1 else smoothing[0]  # type: ignore[assignment]
    return template


def _stack(parts: Sequence[Tensor]) -> Tensor:
    """Stack tensors; each part has the order of dimensions in memory that it had, such as channels last."""
    order = order_of(parts[0])
    return unordered(torch.stack([part.permute(order) for part in parts]), order)


def _dropouts(model: nn.Module) -> dict[str, _DropoutNd]:
    return {path: layer for path, layer in _walk(model) if isinstance(layer, _DropoutNd)}


def _buffers(model: nn.Module) -> list[Tensor]:
    return [buffer for _, module in _walk(model) for buffer in module.buffers(recurse=False)]

"""Trace an example through a network: each layer in the order of the calls, its cost and its receptive field."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.inspection.observer import Layer, Observer
from pipelines.inspection.receptive_field import Reach, example, probes
from pipelines.runtime.status import show_status


@dataclass(frozen=True)
class Trace:
    """The layers of a network, and remarks on what is unknown about them."""

    layers: list[Layer]
    remarks: list[str]


def trace(model: nn.Module, input_shape: tuple[int, ...], only: str | None = None) -> Trace:
    """Trace an example through a network in evaluation mode, and leave the network as it was.

    Args:
        model: Maps a batch of inputs to outputs.
        input_shape: Channels and spatial axes, or the length of a vector.
        only: Layer whose receptive field is needed, by name; the others stay unknown, which is faster.

    Raises:
        RuntimeError: The network does not take inputs of that shape.
    """
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    dtype = next((value.dtype for value in model.parameters() if value.is_floating_point()), torch.float32)
    with _evaluation_mode(model):
        observer = Observer(model, tensors)
        observer.run(example(input_shape).to(dtype))
        layers, known = observer.layers, observer.layers[: observer.known]
        while only is not None and known and known[-1].name != only:
            known.pop()
        reaches, lost = _find_reaches(model, tensors, input_shape, known, only)
    layers[: len(known)] = [
        replace(layer, reach=reach, receptive_field=reach.size if reach else None)
        for layer, reach in zip(known, reaches, strict=True)
    ]
    if len(input_shape) == 1 and not any(layer.window and layer.window.kernel for layer in layers):
        # entries of a vector are positions only to a sliding window
        layers = [replace(layer, receptive_field=None) for layer in layers]
    if observer.lost:
        return Trace(
            layers, [f"receptive fields, and the path that other values take, are unknown from {observer.lost} on"]
        )
    return Trace(layers, [f"receptive fields are unknown from {lost} on"] if lost else [])


def trace_call(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Trace:
    """Trace a forward pass with any arguments in evaluation mode; receptive fields are unknown then.

    Args:
        model: Left as it was.
        args: Positional arguments for one example.
        kwargs: Keyword arguments.
    """
    observer = Observer(model, dict(model.named_parameters()) | dict(model.named_buffers()))
    with _evaluation_mode(model):
        observer.run(*args, **kwargs)
    return Trace(observer.layers, ["receptive fields are unknown: the input is not one tensor of real numbers"])


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _find_reaches(
    model: nn.Module, tensors: Mapping[str, Tensor], input_shape: tuple[int, ...], layers: list[Layer], only: str | None
) -> tuple[list[Reach | None], str]:
    """Return the reach of the outputs of each layer, and the function or layer from which on they are unknown."""
    doubles = {name: value.double() if value.is_floating_point() else value for name, value in tensors.items()}
    axes = max(1, len(input_shape) - 1)
    reaches = [Reach(axes, layer.output) if only in (None, layer.name) else None for layer in layers]
    lost = ""
    spatial = input_shape[-axes:]
    for axis, positions, batch in probes(input_shape) if layers else ():
        done = sum(spatial[:axis]) + int(positions[0])
        show_status(f"receptive fields: {done} of {sum(spatial)} positions of the input")
        observer = Observer(model, doubles, len(layers))
        observer.run(batch)
        for number, (reach, nan) in enumerate(zip_longest(reaches, observer.nan)):
            if reach and (nan is None or not reach.update(axis, positions, nan)):
                reaches[number], lost = None, lost or (observer.lost if nan is None else layers[number].name)
    return reaches, lost

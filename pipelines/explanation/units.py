"""Units of a network: which ones, what they answer, and what of the input they see.

Shapes: N units, H rows and W columns of the input, K classes.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipelines.explanation import classes
from pipelines.explanation.target import Target
from pipelines.inspection import receptive_field as receptive
from pipelines.inspection.trace import trace
from pipelines.runtime.errors import UserError


@dataclass(frozen=True)
class Unit:
    """One number of a layer's output.

    Attributes:
        layer: The whole network for a class, whose unit is its logit.
        index: Its place in the layer's output, without the batch.
        name: For people.
        sees_HW: Whether it can depend on a position of the input.
    """

    layer: nn.Module
    index: tuple[int, ...]
    name: str
    sees_HW: Tensor


def choose(subject: Target, layer: str | None, names: Sequence[str], units: Sequence[str]) -> list[Unit]:
    """The classes, or the units of a layer; all of them where none is named.

    Raises:
        UserError: A class, a layer or a unit does not exist.
    """
    if names and (layer or units):
        raise UserError("--class means the network's output; it does not go with --layer and --unit")
    if units and not layer:
        raise UserError("--unit needs --layer; the classes are --class")
    if layer is None:
        everything = torch.ones(subject.input_shape[1:], dtype=torch.bool)
        numbers = [classes.named(subject, "--class", name) for name in names] or range(len(subject.classes))
        return [Unit(subject.network, (number,), subject.classes[number], everything) for number in numbers]
    return _of_layer(subject, layer, units)


def _of_layer(subject: Target, layer: str, names: Sequence[str]) -> list[Unit]:
    module = subject.layer(layer)
    blank = torch.zeros(1, *subject.input_shape, device=subject.device)
    with torch.no_grad():
        shape = tuple(subject.output_of(module, blank).shape[1:])
    indices = [_index(name, shape, layer) for name in names or map(str, range(shape[0]))]
    fields = _fields(subject, module)
    return [Unit(module, index, ",".join(map(str, index)), _sees(subject, fields, index)) for index in indices]


def _index(name: str, shape: tuple[int, ...], layer: str) -> tuple[int, ...]:
    """The place of a unit: as given, or a channel's middle."""
    parts = name.split(",")
    index = tuple(int(part) for part in parts if part.isdecimal())
    if len(index) == 1 and len(shape) > 1:
        index = (*index, *(size // 2 for size in shape[1:]))
    if len(index) != len(shape) or len(parts) not in (1, len(shape)) or any(map(int.__ge__, index, shape)):
        sizes = "x".join(map(str, shape))
        example = ",".join(["0"] * len(shape))
        raise UserError(f"--unit {name}: {layer} has {sizes} units; the first is {example}")
    return index


def _fields(subject: Target, layer: nn.Module) -> tuple[Tensor, Tensor] | None:
    """First and last row and column that each unit of a layer sees, of shape (2, *output); None if unknown."""
    (name,) = [key for key, module in subject.network.named_modules() if module is layer]
    rows = trace(copy.deepcopy(subject.network).cpu(), subject.input_shape).layers
    reaches = [row.reach for row in rows if row.name == name]
    return receptive.intervals(reaches[-1], 2) if reaches and reaches[-1] is not None else None


def _sees(subject: Target, fields: tuple[Tensor, Tensor] | None, index: tuple[int, ...]) -> Tensor:
    sees_HW = torch.ones(subject.input_shape[1:], dtype=torch.bool)
    if fields is not None:
        for axis, size in enumerate(sees_HW.shape):
            first, last = (float(bound[(axis, *index)]) for bound in fields)
            place = torch.arange(size)
            within = (place >= first) & (place <= last)
            sees_HW &= within[:, None] if axis == 0 else within
    return sees_HW


def values(subject: Target, units: Sequence[Unit], inputs_NCHW: Tensor) -> Tensor:
    """What each unit, all of one layer, answers to an input of its own, which is as the network sees it; shape (N,)."""
    outputs = subject.output_of(units[0].layer, inputs_NCHW)
    places = torch.tensor([unit.index for unit in units], device=outputs.device).T
    return outputs[(torch.arange(len(units), device=outputs.device), *places)]

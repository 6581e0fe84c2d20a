"""Units of a network: which ones are selected, their activations, and their receptive fields in the input.

Shapes: N units, H rows and W columns of the input, K classes.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipelines.explanation.settings import check_units
from pipelines.explanation.target import Target
from pipelines.inspection.receptive_field import Reach
from pipelines.inspection.trace import trace
from pipelines.runtime.errors import UserError


@dataclass(frozen=True)
class Unit:
    """One element of a layer's output.

    Attributes:
        layer: For a class the network itself, whose unit is the logit.
        index: Position in the layer's output, without the batch axis.
        name: For titles.
        receptive_field_HW: Whether the unit can depend on a position of the input.
    """

    layer: nn.Module
    index: tuple[int, ...]
    name: str
    receptive_field_HW: Tensor


def select_units(
    target: Target, classes: Sequence[str] = (), layer: str | None = None, units: Sequence[str] = ()
) -> list[Unit]:
    """Return the classes, or the units of a layer; all of them if none is named.

    Args:
        target: The network.
        classes: Classes, by name or index.
        layer: A layer, instead of classes.
        units: Its units: "CHANNEL,ROW,COLUMN", or "CHANNEL" for the middle position of a channel.

    Raises:
        UserError: A class, a layer or a unit does not exist.
    """
    check_units(classes, layer, units)
    if layer is not None:
        return _units_of_layer(target, layer, units)
    everything_HW = torch.ones(target.input_shape[1:], dtype=torch.bool)
    indices = [target.class_index(name) for name in classes] or range(len(target.classes))
    return [Unit(target.network, (index,), target.classes[index], everything_HW) for index in indices]


def _units_of_layer(target: Target, layer: str, names: Sequence[str]) -> list[Unit]:
    module = target.layer(layer)
    blank = torch.zeros(1, *target.input_shape, device=target.device)
    with torch.no_grad():
        shape = tuple(target.layer_output(module, blank).shape[1:])
    indices = [_parse_index(name, shape, layer) for name in names or map(str, range(shape[0]))]
    (name,) = [key for key, part in target.network.named_modules() if part is module]
    rows = trace(copy.deepcopy(target.network).cpu(), target.input_shape, only=name).layers
    reach = next((row.reach for row in reversed(rows) if row.name == name), None)
    return [Unit(module, index, ",".join(map(str, index)), _receptive_field(target, reach, index)) for index in indices]


def _parse_index(name: str, shape: tuple[int, ...], layer: str) -> tuple[int, ...]:
    """Return the index of a unit: as given, or the middle position of a channel."""
    parts = name.split(",")
    index = tuple(int(part) for part in parts if part.isdecimal())
    if len(index) == 1 and len(shape) > 1:
        index = (*index, *(size // 2 for size in shape[1:]))
    if len(index) != len(shape) or len(parts) not in (1, len(shape)) or any(map(int.__ge__, index, shape)):
        sizes = "x".join(map(str, shape))
        example = ",".join(["0"] * len(shape))
        raise UserError(f"--unit {name}: {layer} has {sizes} units; the first is {example}")
    return index


def _receptive_field(target: Target, reach: Reach | None, index: tuple[int, ...]) -> Tensor:
    """Return whether the unit can depend on a position of the input, shape (H, W); all positions if it is unknown."""
    if reach is None:
        return torch.ones(target.input_shape[1:], dtype=torch.bool)
    rows, columns = (
        (torch.arange(size) >= first[index]) & (torch.arange(size) <= last[index])
        for size, first, last in zip(target.input_shape[1:], reach.first, reach.last, strict=True)
    )
    field_HW: Tensor = rows[:, None] & columns
    return field_HW


def unit_activations(target: Target, units: Sequence[Unit], inputs_NCHW: Tensor) -> Tensor:
    """Return each unit's activation for its own input, shape (N,).

    Args:
        target: The network.
        units: All of one layer.
        inputs_NCHW: A normalised input for each unit.
    """
    outputs = target.layer_output(units[0].layer, inputs_NCHW)
    indices = torch.tensor([unit.index for unit in units], device=outputs.device).T
    return outputs[(torch.arange(len(units), device=outputs.device), *indices)]

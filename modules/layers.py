"""Layers that are chosen by name."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

from torch import nn

Activation = Literal["relu", "leaky_relu", "tanh", "sigmoid", "none"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "none": nn.Identity,
}


def activation(name: Activation) -> nn.Module:
    """The activation layer of that name; "none" passes its input on."""
    return _ACTIVATIONS[name]()


def fully_connected(
    sizes: list[int], num_outputs: int, *, activation_name: Activation, dropout: float
) -> list[nn.Module]:
    """Linear layers of these widths from `sizes[0]` inputs on, each hidden one followed by activation and dropout."""
    require_widths("hidden", sizes)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), activation(activation_name)]
        layers += [nn.Dropout(dropout)] if dropout else []
    return [*layers, nn.Linear(sizes[-1], num_outputs)]


def require_widths(name: str, values: Iterable[int]) -> None:
    """Refuse a number of units, channels or pixels below 1.

    Raises:
        ValueError: One of them is out of range.
    """
    if min(values, default=1) < 1:
        raise ValueError(f"model.{name} has an entry below 1")


def require_rate(name: str, value: float) -> None:
    """Refuse a dropout rate outside [0, 1).

    Raises:
        ValueError: The rate is out of range.
    """
    if not 0 <= value < 1:
        raise ValueError(f"model.{name} is {value}; it must be at least 0 and below 1")

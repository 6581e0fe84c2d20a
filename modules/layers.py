"""Fully connected layers with dropout, weight initialisations selected by name, and checks of their arguments."""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

Init = Literal["default", "zero", "constant", "normal", "xavier", "he"]
Activation = Literal["relu", "leaky_relu", "tanh", "sigmoid", "none"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "none": nn.Identity,
}


def fully_connected(sizes: list[int], num_outputs: int, *, activation: Activation, dropout: float) -> list[nn.Module]:
    """Return linear layers from `sizes[0]` inputs to `num_outputs`; activation and dropout follow each hidden one."""
    require_widths("hidden", sizes)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), ACTIVATIONS[activation]()]
        layers += [nn.Dropout(dropout)] if dropout else []
    return [*layers, nn.Linear(sizes[-1], num_outputs)]


def initialize(net: nn.Module, init: Init, scale: float) -> None:
    """Initialise the weights of all linear and convolutional layers, and set their biases to 0.

    Args:
        net: Module with the layers.
        init: "default" keeps torch's initialisation (He et al. with a = sqrt(5), biases too); "zero" and "constant"
            (`scale`) make all units of a layer identical; "normal" has mean 0 and standard deviation `scale`; "xavier"
            (uniform; Glorot and Bengio, 2010) and "he" (normal; He et al., 2015, for ReLU) preserve the variance from
            layer to layer.
        scale: The constant for "constant", the standard deviation for "normal".

    Raises:
        ValueError: `init` is not one of these names.
    """
    setters: dict[Init, Callable[[Tensor], Any]] = {
        "zero": nn.init.zeros_,
        "constant": partial(nn.init.constant_, val=scale),
        "normal": partial(nn.init.normal_, std=scale),
        "xavier": nn.init.xavier_uniform_,
        "he": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    }
    if init == "default":
        return
    if init not in setters:
        raise ValueError(f"model.init is {init!r}; it must be one of default, {', '.join(setters)}")
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            setters[init](layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def require_widths(name: str, values: Iterable[int]) -> None:
    """Require every number of units, channels or pixels to be at least 1.

    Raises:
        ValueError: One of them is below 1.
    """
    if min(values, default=1) < 1:
        raise ValueError(f"model.{name} has an entry below 1")


def require_rate(name: str, value: float) -> None:
    """Require a dropout rate in [0, 1).

    Raises:
        ValueError: The rate is out of range.
    """
    if not 0 <= value < 1:
        raise ValueError(f"model.{name} is {value}; it must be at least 0 and below 1")

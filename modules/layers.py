"""Fully connected layers with dropout, weight initialisations selected by name, and checks of their arguments."""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

Init = Literal["default", "zero", "constant", "normal", "truncated_normal", "xavier", "he"]
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


def initialize(net: nn.Module, init: Init, scale: float, bias: float | None = None) -> None:
    """Initialise the weights and biases of all linear and convolutional layers.

    Args:
        net: Module with the layers.
        init: "default" keeps torch's initialisation (He et al. with a = sqrt(5), biases too); "zero" and "constant"
            (`scale`) make all units of a layer identical; "normal" has mean 0 and standard deviation `scale`;
            "truncated_normal" is the same without values beyond two standard deviations, as in TensorFlow; "xavier"
            (uniform; Glorot and Bengio, 2010) and "he" (normal; He et al., 2015, for ReLU) preserve the variance from
            layer to layer.
        scale: The constant for "constant", the standard deviation for "normal" and, before truncation, for
            "truncated_normal".
        bias: Initial value of all biases; None for 0, or for torch's with "default".

    Raises:
        ValueError: `init` is not one of these names, or "truncated_normal" has no positive `scale`.
    """
    setters: dict[Init, Callable[[Tensor], Any]] = {
        "zero": nn.init.zeros_,
        "constant": partial(nn.init.constant_, val=scale),
        "normal": partial(nn.init.normal_, std=scale),
        "truncated_normal": partial(nn.init.trunc_normal_, std=scale, a=-2 * scale, b=2 * scale),
        "xavier": nn.init.xavier_uniform_,
        "he": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    }
    if init != "default" and init not in setters:
        raise ValueError(f"model.init is {init!r}; it must be one of default, {', '.join(setters)}")
    if init == "truncated_normal" and scale <= 0:
        raise ValueError(f"model.init_scale is {scale}; it must be above 0 with model.init truncated_normal")
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            _initialize_layer(layer, setters.get(init), 0.0 if bias is None and init != "default" else bias)


def _initialize_layer(
    layer: nn.Linear | nn.Conv2d, set_weights: Callable[[Tensor], Any] | None, bias: float | None
) -> None:
    """Set the weights and, if it has any, the biases of a layer; None keeps them."""
    if set_weights is not None:
        set_weights(layer.weight)
    if bias is not None and layer.bias is not None:
        nn.init.constant_(layer.bias, bias)


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

"""Networks of the same layers as one: their parameters along a new first axis, and all their outputs at once.

Shapes: N nets, B examples of a batch, I inputs and O outputs of a layer, K classes.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PLAIN = (nn.Flatten, nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Identity)
"""Layers without parameters, that treat each example for itself and draw nothing."""


@final
class StackedNet(nn.Module):
    """N nets that differ in their parameters and in the rates of their dropout, as one.

    The nets' own parameters become views of the stack's, so that an optimiser of each net changes the stack.

    Args:
        nets: Of the same layers, but for dropout, which some may have and others not.

    Raises:
        ValueError: The nets differ, or have a layer that cannot be stacked.
    """

    def __init__(self, nets: Sequence[nn.Sequential]) -> None:
        super().__init__()
        for one, other in pairwise(structure(net) for net in nets):
            if one != other:
                raise ValueError(f"the layers are {', '.join(one)}, and {', '.join(other)}")
        apart = [_without_dropout(net) for net in nets]
        self.layers = nn.ModuleList(_stacked([layers[i][0] for layers in apart]) for i in range(len(apart[0])))
        self._rates = [[layers[i][1] for layers in apart] for i in range(len(apart[0]))]
        self._owners = [list(parameters) for parameters in zip(*(net.parameters() for net in nets), strict=True)]
        for parameter, owners in zip(self.parameters(), self._owners, strict=True):
            for owner, part in zip(owners, parameter.detach().unbind(0), strict=True):
                owner.data = part

    def forward(
        self, inputs: Tensor, generators: Sequence[torch.Generator] | None = None, *, shared: bool = True
    ) -> Tensor:
        """Logits of shape (N, B, K).

        Args:
            inputs: Shape (B, ...), the same for all nets; or (N, B, ...), if they are not `shared`.
            generators: What each net's dropout draws from, net by net in the order of its layers; None for no dropout.
            shared: Whether all nets see the same inputs.
        """
        x = inputs
        for layer, rates in zip(self.layers, self._rates, strict=True):
            if isinstance(layer, _Linear):
                x, shared = layer(x, shared), False
            else:
                x = layer(x) if shared else _on_examples(layer, x)
            if generators is not None and any(rates):
                x = x * _noise(x, rates, generators)
        return x

    def hand_over_gradients(self) -> None:
        """Give each net's own parameters their part of the gradients, and forget these here."""
        for parameter, owners in zip(self.parameters(), self._owners, strict=True):
            assert parameter.grad is not None
            for owner, part in zip(owners, parameter.grad.unbind(0), strict=True):
                owner.grad = part
            parameter.grad = None


class _Linear(nn.Module):
    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.weight_NOI, self.bias_NO = _parameters(layers)

    def forward(self, x: Tensor, shared: bool) -> Tensor:
        if shared:  # one product for all nets
            bias = None if self.bias_NO is None else self.bias_NO.flatten()
            out = F.linear(x, self.weight_NOI.flatten(0, 1), bias)
            return out.view(len(x), *self.weight_NOI.shape[:2]).movedim(1, 0)
        if self.bias_NO is None:
            return torch.bmm(x, self.weight_NOI.mT)
        return torch.baddbmm(self.bias_NO[:, None], x, self.weight_NOI.mT)


STACKED: dict[type[nn.Module], Callable[[Sequence[nn.Module]], nn.Module]] = {
    nn.Linear: _Linear,
    **{kind: lambda layers: layers[0] for kind in PLAIN},
}


def structure(net: nn.Sequential) -> list[str]:
    """The layers in words, without dropout: what nets must have in common to be stacked.

    Raises:
        ValueError: A layer cannot be stacked.
    """
    layers = [layer for layer, _ in _without_dropout(net)]
    for layer in layers:
        if type(layer) not in STACKED:
            raise ValueError(f"layers such as {type(layer).__name__} cannot be stacked")
    return [repr(layer) for layer in layers]


def _without_dropout(net: nn.Sequential) -> list[tuple[nn.Module, float]]:
    """The other layers, each with the rate of the dropout after it."""
    found: list[tuple[nn.Module, float]] = []
    for layer in net:
        if isinstance(layer, nn.Dropout):
            found[-1] = (found[-1][0], layer.p)
        else:
            found.append((layer, 0.0))
    return found


def _stacked(layers: Sequence[nn.Module]) -> nn.Module:
    return STACKED[type(layers[0])](layers)


def _parameters(layers: Sequence[nn.Module]) -> tuple[nn.Parameter, nn.Parameter | None]:
    stacks = [
        torch.stack([parameter.detach() for parameter in ps])
        for ps in zip(*(layer.parameters() for layer in layers), strict=True)
    ]
    weight, *biases = map(nn.Parameter, stacks)
    return weight, biases[0] if biases else None


def _on_examples(layer: nn.Module, x: Tensor) -> Tensor:
    """A plain layer, on all examples of all nets."""
    out: Tensor = layer(x.flatten(0, 1))
    return out.view(*x.shape[:2], *out.shape[1:])


def _noise(x: Tensor, rates: Sequence[float], generators: Sequence[torch.Generator]) -> Tensor:
    """What dropout multiplies with: 0, or 1 / (1 - rate); drawn as `nn.Dropout` does."""
    noise = torch.ones(x.shape)
    for part, rate, generator in zip(noise, rates, generators, strict=True):
        if rate:
            part.bernoulli_(1 - rate, generator=generator).div_(1 - rate)
    return noise

"""Networks of the same layers as one: their parameters along a new first axis, and all their outputs at once.

Shapes: N nets, B examples of a batch, I inputs and O outputs of a layer, K classes.
"""

from collections.abc import Sequence
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
        self.layers, self._rates = nn.ModuleList(), list[tuple[float, ...]]()
        for same in zip(*map(_without_dropout, nets), strict=True):
            layers, rates = zip(*same, strict=True)
            self.layers.append(_Linear(layers) if isinstance(layers[0], nn.Linear) else layers[0])
            self._rates.append(rates)
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
                x = layer(x) if shared else layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
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
    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight_NOI = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.bias_NO = nn.Parameter(torch.stack(biases)) if biases else None

    def forward(self, x: Tensor, shared: bool) -> Tensor:
        if shared:  # one product for all nets
            bias = None if self.bias_NO is None else self.bias_NO.flatten()
            out = F.linear(x, self.weight_NOI.flatten(0, 1), bias)
            return out.view(len(x), *self.weight_NOI.shape[:2]).movedim(1, 0)
        if self.bias_NO is None:
            return torch.bmm(x, self.weight_NOI.mT)
        return torch.baddbmm(self.bias_NO[:, None], x, self.weight_NOI.mT)


def structure(net: nn.Sequential) -> list[str]:
    """The layers in words, without dropout: what nets must have in common to be stacked.

    Raises:
        ValueError: A layer cannot be stacked.
    """
    layers = [layer for layer, _ in _without_dropout(net)]
    for layer in layers:
        if type(layer) not in (nn.Linear, *PLAIN):
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


def _noise(x: Tensor, rates: Sequence[float], generators: Sequence[torch.Generator]) -> Tensor:
    """What dropout multiplies with: 0, or 1 / (1 - rate); drawn as `nn.Dropout` does."""
    noise = torch.ones(x.shape)
    for part, rate, generator in zip(noise, rates, generators, strict=True):
        if rate:
            part.bernoulli_(1 - rate, generator=generator).div_(1 - rate)
    return noise

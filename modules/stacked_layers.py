"""Multi-layer perceptrons as one, with hand-made layers, which are faster than `torch.func` on a CPU.

Shapes: N nets, B examples of a batch, I inputs and O outputs of a layer, K classes.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.base import Classifier
from modules.circles import CirclesMLP
from modules.linear import LinearClassifier
from modules.mlp import MLP
from modules.stack import Batch, Stack, Updates
from modules.stacked_dropout import draw_each

MODELS: tuple[type[Classifier], ...] = (MLP, LinearClassifier, CirclesMLP)
PLAIN = (nn.Flatten, nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Identity)
"""Layers without parameters, that treat each example for itself and draw nothing."""


@final
class LayerStack(Stack):
    """N classifiers whose net is a sequence of fully connected layers.

    Args:
        models: Their nets have the same layers, but for dropout, which some may have and others not.

    Raises:
        ValueError: The nets differ.
    """

    def __init__(self, models: Sequence[Classifier]) -> None:
        super().__init__()
        nets = [_net(model) for model in models]
        for one, other in pairwise([repr(layer) for layer, _ in _without_dropout(net)] for net in nets):
            if one != other:
                raise ValueError(f"the layers are {', '.join(one)}, and {', '.join(other)}")
        self.layers, self._rates = nn.ModuleList(), list[tuple[float, ...]]()
        for same in zip(*map(_without_dropout, nets), strict=True):
            layers, rates = zip(*same, strict=True)
            self.layers.append(_Linear(layers) if isinstance(layers[0], nn.Linear) else layers[0])
            self._rates.append(rates)
        self._take_over(list(zip(*(net.parameters() for net in nets), strict=True)))
        self._models = list(models)
        losses = [model.hparams.get("label_smoothing", 0.0) for model in models]
        self._same_loss = [[i for i, other in enumerate(losses) if other == loss] for loss in dict.fromkeys(losses)]
        self._last: tuple[Tensor, Tensor]

    def forward(
        self, inputs: Tensor, generators: Sequence[torch.Generator] | None = None, *, shared: bool = True
    ) -> Tensor:
        """Return the logits, shape (N, B, K); without dropout if there are no generators."""
        x = inputs
        for layer, rates in zip(self.layers, self._rates, strict=True):
            if isinstance(layer, _Linear):
                x, shared = layer(x, shared), False
            else:
                x = layer(x) if shared else layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            if generators is not None and any(rates):
                x = x * draw_each(x.shape, rates, generators)
        return x

    def training_step(
        self, batch: Batch, generators: Sequence[torch.Generator] | None, *, shared: bool
    ) -> tuple[Tensor, Updates]:
        assert generators is not None, "on a CPU, each model draws for itself"
        inputs, labels = batch
        labels_NB = labels.expand(len(self._models), -1) if shared else labels
        logits_NBK: Tensor = self(inputs, generators, shared=shared)
        total = torch.zeros(())
        for group in self._same_loss:  # the mean over several batches, as often as there are: the sum of their means
            whole = len(group) == len(self._models)
            logits, targets = (logits_NBK, labels_NB) if whole else (logits_NBK[group], labels_NB[group])
            loss = self._models[group[0]].training_loss(logits.flatten(0, 1), targets.flatten())
            total = total + len(group) * loss
        self._last = logits_NBK.detach(), labels_NB
        return total, [self._last]

    def losses(self) -> Tensor:
        parts = zip(self._models, *self._last, strict=True)
        return torch.stack([model.training_loss(logits_BK, labels_B) for model, logits_BK, labels_B in parts])

    @torch.no_grad()
    def evaluation_step(self, batch: Batch) -> Updates:
        inputs, labels_B = batch
        return [(self(inputs), labels_B.expand(len(self._models), -1))]


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


def has_stackable_layers(model: Classifier) -> bool:
    """Return whether a `LayerStack` can hold a model. A subclass may have another step, which it would not see."""
    if type(model) not in MODELS or model.hparams.get("reduction") == "sum":
        return False
    net = model.net
    return isinstance(net, nn.Sequential) and all(type(layer) in (nn.Linear, nn.Dropout, *PLAIN) for layer in net)


def _net(model: Classifier) -> nn.Sequential:
    assert isinstance(model.net, nn.Sequential)
    return model.net


def _without_dropout(net: nn.Sequential) -> list[tuple[nn.Module, float]]:
    """Return the other layers, each with the rate of the dropout after it."""
    found: list[tuple[nn.Module, float]] = []
    for layer in net:
        if isinstance(layer, nn.Dropout):
            found[-1] = (found[-1][0], layer.p)
        else:
            found.append((layer, 0.0))
    return found

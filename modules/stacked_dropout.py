"""Dropout and label smoothing of stacked models, each with its own rate and its own random generator.

Inside `torch.func.vmap` a function sees one model. The masks are drawn in a function that sees all of them.

Shapes: N models.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Order = tuple[int, ...]
"""The dimensions of a tensor, from the largest stride to the smallest."""

DROPOUTS: dict[Callable[..., Tensor], int | None] = {
    F.dropout: None,
    F.dropout1d: 2,
    F.dropout2d: 2,
    F.dropout3d: 2,
}
"""Functions that can be stacked, and the number of leading dimensions that their mask has; None for all."""


class Rates(tuple[float, ...]):
    """A rate for each of N models, in the place of one for all."""

    _tensor: Tensor | None = None

    def on(self, device: torch.device) -> Tensor:
        """Return the rates as a tensor, which is made once: a copy would not be captured in a CUDA graph."""
        if self._tensor is None or self._tensor.device != device:
            self._tensor = torch.tensor(self, device=device)
        return self._tensor


class StackedRates(TorchFunctionMode):
    """Inside this context, dropout and label smoothing take the rates of each model.

    Args:
        model: Index of the model, which differs within `vmap`.
        generators: What each model's dropout draws from; None to draw for all from the generator of the device.
        orders: Of each call of dropout, the order of the dimensions in memory if the model runs alone. The values of a
            mask are drawn in that order.
    """

    def __init__(self, model: Tensor, generators: Sequence[torch.Generator] | None, orders: Sequence[Order]) -> None:
        super().__init__()
        self._model, self._generators, self._orders = model, generators, iter(orders)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in DROPOUTS:
            return self._dropout(DROPOUTS[func], *args, **kwargs)
        if func is F.cross_entropy and isinstance(kwargs.get("label_smoothing"), Rates):
            return self._cross_entropy(*args, **kwargs)
        return func(*args, **kwargs)

    def _dropout(
        self, leading: int | None, x: Tensor, p: float | Rates = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not is_drawn(p, training):
            return x
        order = next(self._orders, None)

        def draw(shape: tuple[int, ...]) -> Tensor:
            if leading is not None:
                shape = shape[: leading + 1] + (1,) * (len(shape) - leading - 1)
            if self._generators is None:
                return draw_together(shape, p, x.device)
            rates = p if isinstance(p, Rates) else (p,) * shape[0]
            return draw_each(shape, rates, self._generators, order if leading is None else None)

        masks: Tensor = _Draw.apply(x.detach(), self._model, draw)
        return x * masks

    def _cross_entropy(self, logits: Tensor, labels: Tensor, *, label_smoothing: Rates, **others: Any) -> Tensor:
        smoothing = label_smoothing.on(logits.device)[self._model]
        uniform = -F.log_softmax(logits, 1).mean()
        return (1 - smoothing) * F.cross_entropy(logits, labels) + smoothing * uniform


class _Draw(torch.autograd.Function):
    """Call a function with the shape of x of all models."""

    @staticmethod
    def forward(x: Tensor, model: Tensor, draw: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
        raise AssertionError("it is called within vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is differentiated."""

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, model: Tensor, draw: Callable[[tuple[int, ...]], Tensor]
    ) -> tuple[Tensor, int]:
        shape = x.shape if in_dims[0] is None else x.movedim(in_dims[0], 0).shape[1:]
        return draw((info.batch_size, *shape)), 0


def draw_each(
    shape: tuple[int, ...], rates: Sequence[float], generators: Sequence[torch.Generator], order: Order | None = None
) -> Tensor:
    """Return what dropout multiplies with, 0 or 1 / (1 - rate), drawn for each model as `nn.Dropout` does."""
    if order is None:
        order = tuple(range(len(shape) - 1))
    masks = torch.ones((shape[0], *(shape[1:][dimension] for dimension in order)))
    for mask, rate, generator in zip(masks, rates, generators, strict=True):
        if rate:
            mask.bernoulli_(1 - rate, generator=generator).div_(1 - rate)
    return unordered(masks, order)


def order_of(x: Tensor) -> Order:
    """Return the order of the dimensions in memory."""
    strides = x.stride()
    return tuple(sorted(range(x.dim()), key=lambda dimension: -strides[dimension]))


def unordered(x: Tensor, order: Order) -> Tensor:
    """Return a view in which the dimensions after the first, which are in this order, are in their places."""
    return x.permute(0, *(order.index(dimension) + 1 for dimension in range(len(order))))


def draw_together(shape: tuple[int, ...], rates: float | Rates, device: torch.device) -> Tensor:
    """Return the same, with one draw for all models from the generator of the device."""
    dropped = rates.on(device).view(-1, *(1,) * (len(shape) - 1)) if isinstance(rates, Rates) else rates
    return (torch.rand(shape, device=device) >= dropped) / (1 - dropped)


class Orders(TorchFunctionMode):
    """Record the order of the dimensions in memory for each call of dropout, in the place of dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Order] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in DROPOUTS:
            return self._dropout(*args, **kwargs)
        if func is F.cross_entropy:
            kwargs["label_smoothing"] = 0.0
        return func(*args, **kwargs)

    def _dropout(self, x: Tensor, p: float | Rates = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if is_drawn(p, training):
            self.found.append(order_of(x))
        return x


def is_drawn(p: float | Rates, training: bool) -> bool:
    """Return whether dropout draws a mask for any model."""
    return training and (any(p) if isinstance(p, Rates) else p > 0)

"""SGD, Adam and AdamW of stacked models: one element-wise update, with the learning rate of each model.

Shapes: N models.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

Numbers = dict[str, Tensor]
State = dict[str, Tensor]
"""What an optimiser keeps of a parameter, under torch's names, with a first axis of N."""

FLAGS = ("amsgrad", "maximize", "differentiable", "nesterov")
REFUSED = (*FLAGS[:3], "dampening")


class StackedOptimizer:
    """Does the steps of N optimisers of torch. Their state stays theirs, as views of the stacked one.

    Args:
        parameters: The stacked parameters.
        owners: The parameters of the N models that they stand for.
        optimizers: Those of the models, for which `takes` is true.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        owners: Sequence[Sequence[nn.Parameter]],
        optimizers: Sequence[Optimizer],
    ) -> None:
        self._optimizers = list(optimizers)
        self._device = parameters[0].device
        self._given: list[tuple[float, ...]] = []
        self._numbers: Numbers = {}
        pairs = [(whole, parts) for whole, parts in zip(parameters, owners, strict=True) if whole.requires_grad]
        self._parameters = [whole for whole, _ in pairs]
        group = optimizers[0].param_groups[0]
        self._is_sgd = isinstance(optimizers[0], SGD)
        has_momentum = self._is_sgd and any(optimizer.param_groups[0]["momentum"] for optimizer in optimizers)
        names = (("momentum_buffer",) if has_momentum else ()) if self._is_sgd else ("exp_avg", "exp_avg_sq")
        self._states = [self._stacked_state(whole, parts, names) for whole, parts in pairs]
        update = _sgd if self._is_sgd else _adam
        self._update: Callable[..., None] = torch.compile(update) if self._device.type == "cuda" else update
        self._flag = bool(group["nesterov"]) if self._is_sgd else _is_decoupled(optimizers[0])
        for optimizer in optimizers:  # schedules expect that a step comes first; without gradients it does nothing
            optimizer.zero_grad()
            optimizer.step()
        self.read_numbers()

    @staticmethod
    def takes(optimizers: Sequence[Optimizer]) -> bool:
        """Return whether it can do the steps of these optimisers: of one class, with one group, and plain."""
        groups = [optimizer.param_groups[0] for optimizer in optimizers]
        return (
            type(optimizers[0]) in (SGD, Adam, AdamW)
            and len({type(optimizer) for optimizer in optimizers}) == 1
            and all(len(optimizer.param_groups) == 1 for optimizer in optimizers)
            and not any(group.get(flag) for group in groups for flag in REFUSED)
            and all(len({bool(group.get(flag)) for group in groups}) == 1 for flag in FLAGS)
            and len({bool(group.get("momentum")) for group in groups}) == 1
            and len({_is_decoupled(optimizer) for optimizer in optimizers}) == 1
        )

    def _stacked_state(self, whole: Tensor, parts: Sequence[nn.Parameter], names: Sequence[str]) -> State:
        """Return the state of a parameter, what its owners have or zeros, and let the owners share it."""
        state = {name: torch.zeros_like(whole, requires_grad=False) for name in names}
        if not self._is_sgd:
            state["step"] = torch.zeros(len(parts), device=whole.device)
        for name, stacked in state.items():
            for optimizer, part, view in zip(self._optimizers, parts, stacked.unbind(0), strict=True):
                own = optimizer.state[part]
                if isinstance(own.get(name), Tensor):
                    view.copy_(own[name])
                own[name] = view
        return state

    def read_numbers(self) -> None:
        """Take the learning rates and other numbers of the optimisers, which schedules change."""
        given = [_numbers(optimizer.param_groups[0]) for optimizer in self._optimizers]
        values = [tuple(numbers.values()) for numbers in given]
        if values == self._given:
            return
        self._given = values
        columns = torch.tensor(values, dtype=torch.float64).T  # 1 - 0.999 ** step has few digits in float32
        for name, column in zip(given[0], columns, strict=True):
            if name in self._numbers:
                self._numbers[name].copy_(column)
            else:
                self._numbers[name] = column.contiguous().to(self._device)

    @torch.no_grad()
    def step(self) -> None:
        """Update the stacked parameters by their gradients."""
        changed = [number for number, parameter in enumerate(self._parameters) if parameter.grad is not None]
        parameters = [self._parameters[number] for number in changed]
        gradients = [parameter.grad for parameter in parameters]
        self._update(parameters, gradients, [self._states[number] for number in changed], self._numbers, self._flag)


def _is_decoupled(optimizer: Optimizer) -> bool:
    return isinstance(optimizer, AdamW) or bool(optimizer.param_groups[0].get("decoupled_weight_decay"))


def _numbers(group: dict[str, Any]) -> dict[str, float]:
    found = {name: float(group[name]) for name in ("lr", "weight_decay", "eps", "momentum") if name in group}
    betas = group.get("betas", ())
    return found | {f"beta{number}": float(beta) for number, beta in enumerate(betas, 1)}


def _adam(
    parameters: list[Tensor], gradients: list[Tensor], states: list[State], numbers: Numbers, decoupled: bool
) -> None:
    for whole, gradient, state in zip(parameters, gradients, states, strict=True):
        state["step"] += 1
        step, average, square = state["step"].double(), state["exp_avg"], state["exp_avg_sq"]
        decay = numbers["weight_decay"]
        if decoupled:
            whole.mul_(_wide(1 - numbers["lr"] * decay, whole))
        else:
            gradient = gradient + _wide(decay, whole) * whole
        average.lerp_(gradient, _wide(1 - numbers["beta1"], whole))
        square.lerp_(gradient.square(), _wide(1 - numbers["beta2"], whole))
        size = numbers["lr"] / (1 - numbers["beta1"] ** step)
        correction = (1 - numbers["beta2"] ** step).rsqrt()
        denominator = square.sqrt().mul_(_wide(correction, whole)).add_(_wide(numbers["eps"], whole))
        whole.sub_(_wide(size, whole) * average / denominator)


def _sgd(
    parameters: list[Tensor], gradients: list[Tensor], states: list[State], numbers: Numbers, nesterov: bool
) -> None:
    for whole, gradient, state in zip(parameters, gradients, states, strict=True):
        direction = gradient + _wide(numbers["weight_decay"], whole) * whole
        if "momentum_buffer" in state:
            buffer, momentum = state["momentum_buffer"], _wide(numbers["momentum"], whole)
            buffer.mul_(momentum).add_(direction)
            direction = direction + momentum * buffer if nesterov else buffer
        whole.sub_(_wide(numbers["lr"], whole) * direction)


def _wide(numbers: Tensor, whole: Tensor) -> Tensor:
    """Return a number for each model in the shape and type that a stacked parameter broadcasts with."""
    return numbers.to(whole.dtype).view(-1, *(1,) * (whole.dim() - 1))

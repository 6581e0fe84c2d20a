"""An optimiser whose updates of filters are orthogonal matrices.

Shapes: O output channels, I values of a filter (input channels * rows * columns).
"""

from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of a x + b x³ + c x⁵, which brings singular values in (0, 1] near 1 in few iterations (Jordan et al., 2024)."""


@final
class Muon(Optimizer):
    """Muon for convolutions, SGD for all other parameters, both with Nesterov momentum (Jordan et al., 2024).

    The filters of a convolution are one matrix with a row for each output channel. Its update is the momentum with all
    singular values near 1, times the learning rate. Before it, the filters are scaled to a norm of √O: they
    need no weight decay, and batch norm must follow them. `torch.optim.Muon` takes matrices only.

    Args:
        params: Parameters: those with four dimensions are filters, those with one are vectors, others are matrices.
        lr: Learning rate of filters.
        vector_lr: Learning rate of vectors: biases, and weights and biases of norms.
        matrix_lr: Learning rate of matrices, such as the weight of the last layer.
        momentum: Momentum of filters.
        other_momentum: Momentum of the other parameters.
        weight_decay: Share of each vector and matrix that a step subtracts from it at the initial learning rate.
        iterations: Newton-Schulz iterations, which make the singular values of an update equal.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.24,
        vector_lr: float = 0.1,
        matrix_lr: float = 0.02,
        momentum: float = 0.6,
        other_momentum: float = 0.85,
        weight_decay: float = 0.0,
        iterations: int = 3,
    ) -> None:
        rates = {4: lr, 1: vector_lr, 2: matrix_lr}
        for name, value in {"lr": lr, "vector_lr": vector_lr, "matrix_lr": matrix_lr}.items():
            if value <= 0:
                raise ValueError(f"model.optimizer.{name} is {value}; it must be above 0")
        for name, value in {"momentum": momentum, "other_momentum": other_momentum}.items():
            if not 0 <= value < 1:
                raise ValueError(f"model.optimizer.{name} is {value}; it must be at least 0 and below 1")
        kinds: dict[int, list[Tensor]] = {4: [], 1: [], 2: []}
        for parameter in params:
            kinds[parameter.ndim if parameter.ndim in kinds else 2].append(parameter)
        groups = [
            {
                "params": parameters,
                "lr": rates[ndim],
                "momentum": momentum if ndim == 4 else other_momentum,
                "decay": 0.0 if ndim == 4 else weight_decay / rates[ndim],
                "orthogonal": ndim == 4,
            }
            for ndim, parameters in kinds.items()
            if parameters
        ]
        super().__init__(groups, {"iterations": iterations, "capturable": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters; return the loss of the closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        update = gradient + group["momentum"] * average
        if group["orthogonal"]:
            parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
            update = orthogonalized(update.flatten(1), group["iterations"]).view_as(parameter).to(parameter.dtype)
        else:
            parameter.mul_(1 - group["decay"] * group["lr"])
        parameter.sub_(update * group["lr"])


def orthogonalized(matrix_OI: Tensor, iterations: int = 3) -> Tensor:
    """Return a matrix with the same singular vectors, and singular values of about 0.5 to 1.5, by Newton-Schulz.

    On a GPU, products are computed in bfloat16. Singular values that are far below the largest one stay smaller.
    """
    rows: Tensor = matrix_OI if matrix_OI.shape[0] <= matrix_OI.shape[1] else matrix_OI.T
    rows = rows.bfloat16() if rows.is_cuda else rows
    rows = rows / rows.norm().clamp(min=1e-7)  # so that the largest singular value is at most 1
    a, b, c = COEFFICIENTS
    for _ in range(iterations):
        gram = rows @ rows.T
        rows = a * rows + (b * gram + c * gram @ gram) @ rows
    return rows if rows.shape == matrix_OI.shape else rows.T

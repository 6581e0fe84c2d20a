"""Regression of three functions of four variables.

Shapes: B batch size, D input features.
"""

from functools import partial
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from modules.base import Batch, Regressor
from modules.layers import require_widths
from modules.metrics import MeanLoss, SplitMetrics

FUNCTIONS = ("y0", "y1", "y2")
Kind = Literal["linear", "convnet"]


@final
class FunctionRegressor(Regressor):
    """One small model for each of y0, y1 and y2. They share no parameters and are trained together.

    Logs the mean squared error of each function, `loss_y0` to `loss_y2`, and their mean, `loss`.

    Args:
        input_shape: Number of input features, D, as a tuple.
        kind: "linear" regression, or "convnet": 1-D convolution, ReLU, max pooling of size 2, linear layer.
        filters: Number of filters of each convnet.
        kernel_size: Kernel size of the convolution, which is padded with kernel_size - 1 zeros at both ends.
        **training: Optimiser and scheduler, see `Learner`.
    """

    def __init__(
        self,
        input_shape: tuple[int],
        kind: Kind = "linear",
        filters: int = 64,
        kernel_size: int = 4,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        require_widths("filters", [filters])
        if kind not in ("linear", "convnet"):
            raise ValueError(f"model.kind is {kind!r}; it must be linear or convnet")
        require_widths("kernel_size", [kernel_size])
        self.nets = nn.ModuleList(_net(kind, input_shape[0], filters, kernel_size) for _ in FUNCTIONS)

    def forward(self, x_BD: Tensor) -> Tensor:
        """Return estimates of y0, y1, y2, shape (B, 3)."""
        return torch.cat([net(x_BD) for net in self.nets], 1)

    def metrics(self) -> dict[str, Metric | MetricCollection]:
        per_function: dict[str, Metric | MetricCollection] = {
            f"loss_{name}": MeanLoss(partial(_column_mse, index)) for index, name in enumerate(FUNCTIONS)
        }
        return {"loss": MeanLoss(nn.functional.mse_loss), **per_function}

    def _step(self, batch: Batch, metrics: SplitMetrics) -> tuple[Tensor, dict[str, Tensor]]:
        x_BD, y_B3 = batch
        estimates_B3 = self(x_BD.to(self.dtype))
        metrics.update(estimates_B3, y_B3)
        return nn.functional.mse_loss(estimates_B3, y_B3), {"estimates": estimates_B3, "targets": y_B3}


def _column_mse(column: int, estimates_B3: Tensor, y_B3: Tensor) -> Tensor:
    return nn.functional.mse_loss(estimates_B3[:, column], y_B3[:, column])


def _net(kind: Kind, size: int, filters: int, kernel_size: int) -> nn.Module:
    if kind == "linear":
        return nn.Linear(size, 1)
    return nn.Sequential(
        nn.Unflatten(1, (1, size)),
        nn.Conv1d(1, filters, kernel_size, padding=kernel_size - 1),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Flatten(),
        nn.Linear(filters * ((size + kernel_size - 1) // 2), 1),
    )

"""Multi-layer perceptron for regression.

Shapes: B batch size, D features, K targets.
"""

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection, R2Score

from modules.base import Batch, Regressor
from modules.layers import Activation, fully_connected, require_rate, require_widths
from modules.metrics import MeanLoss, SplitMetrics


@final
class MLPRegressor(Regressor):
    """Fully connected layers from the features to the targets.

    Logs the mean squared error `loss` and the mean absolute error `mae`, both for targets in their own unit, and `r2`,
    the fraction of the variance that is explained. In training, errors are divided by the standard deviation of the
    targets in the first batch, so that the learning rate does not depend on the unit.

    Args:
        input_shape: Number of features, D, as a tuple.
        num_targets: Number of targets, K.
        hidden: Units of each hidden layer.
        activation: Activation after each hidden layer.
        dropout: Dropout rate after each hidden layer; 0 for none.
        **training: Optimiser and scheduler, see `Learner`.
    """

    mean_K: Tensor
    std_K: Tensor
    is_scaled: Tensor

    min_examples = 2  # of r2

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_targets: int = 1,
        hidden: Sequence[int] = (64, 64),
        activation: Activation = "relu",
        dropout: float = 0.0,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        if len(input_shape) != 1:
            raise ValueError(f"MLPRegressor takes rows of numbers; an example has the shape {tuple(input_shape)}")
        require_widths("num_targets", [num_targets])
        require_rate("dropout", dropout)
        layers = fully_connected([input_shape[0], *hidden], num_targets, activation=activation, dropout=dropout)
        self.net = nn.Sequential(*layers)
        self.register_buffer("mean_K", torch.zeros(num_targets))
        self.register_buffer("std_K", torch.ones(num_targets))
        self.register_buffer("is_scaled", torch.tensor(False))

    def forward(self, features_BD: Tensor) -> Tensor:
        """Return estimates of the targets in their unit, shape (B, K)."""
        estimates_BK: Tensor = self.mean_K + self.std_K * self.net(features_BD)
        return estimates_BK

    def metrics(self) -> dict[str, Metric | MetricCollection]:
        return {
            "loss": MeanLoss(nn.functional.mse_loss),
            "mae": MeanLoss(nn.functional.l1_loss),
            "r2": R2Score(),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        if batch_idx == 0 and not self.is_scaled and len(batch[1]):
            self._set_scale(batch[1])
        return super().training_step(batch, batch_idx)

    def _set_scale(self, targets_BK: Tensor) -> None:
        """Take mean and standard deviation of each target from a batch; of several processes, from the first one's."""
        std_K = targets_BK.std(0, correction=0)
        mean_K, std_K = targets_BK.mean(0), torch.where(std_K > 0, std_K, 1)
        strategy = self.trainer.strategy
        self.mean_K.copy_(strategy.broadcast(mean_K))
        self.std_K.copy_(strategy.broadcast(std_K))
        self.is_scaled.fill_(True)

    def _step(self, batch: Batch, metrics: SplitMetrics) -> tuple[Tensor, dict[str, Tensor]]:
        features_BD, targets_BK = batch
        estimates_BK = self(features_BD.to(self.dtype))
        metrics.update(estimates_BK, targets_BK)
        loss = nn.functional.mse_loss(estimates_BK / self.std_K, targets_BK / self.std_K)
        return loss, {"estimates": estimates_BK, "targets": targets_BK}

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return estimates of the targets in their unit, shape (B, K)."""
        estimates_BK: Tensor = self(batch[0].to(self.dtype)).float()
        return estimates_BK

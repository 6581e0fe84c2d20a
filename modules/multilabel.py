"""Abstract classifier of examples with any number of labels.

Shapes: B batch size, K labels.
"""

from abc import abstractmethod
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MultilabelAveragePrecision, MultilabelF1Score

from modules.base import Batch, Learner
from modules.metrics import MeanLoss, SplitMetrics


class MultilabelClassifier(Learner):
    """Base class of classifiers whose examples have any number of K labels. Subclasses implement `forward`.

    The loss is the binary cross-entropy, averaged over the labels. Logs it as `loss`, the mean over the labels of their
    average precision as `map`, and of their F1 score at a probability of 0.5 as `f1`.

    Args:
        num_classes: Number of labels, K.
        **training: Optimiser and scheduler, see `Learner`.
    """

    monitor = "val/map"
    mode = "max"

    def __init__(self, num_classes: int, **training: Any) -> None:
        if num_classes < 1:
            raise ValueError(f"{type(self).__name__} needs data with labels; there are {num_classes}")
        super().__init__(**training)

    def metrics(self) -> dict[str, Metric | MetricCollection]:
        num_labels = self.hparams["num_classes"]
        return {"loss": MeanLoss(label_loss), "map": LogitsAveragePrecision(num_labels), "f1": LogitsF1(num_labels)}

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs to logits of shape (B, K)."""

    def _step(self, batch: Batch, metrics: SplitMetrics) -> tuple[Tensor, dict[str, Tensor]]:
        inputs, labels_BK = batch
        logits_BK = self(inputs.to(self.dtype))
        metrics.update(logits_BK, labels_BK)
        return label_loss(logits_BK, labels_BK), {"label_logits": logits_BK, "labels_of_each": labels_BK}

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the probability of each label, shape (B, K)."""
        probabilities_BK: Tensor = self(batch[0].to(self.dtype)).float().sigmoid()
        return probabilities_BK


def label_loss(logits_BK: Tensor, labels_BK: Tensor) -> Tensor:
    """Return the binary cross-entropy of labels 0 and 1, averaged over batch and labels."""
    return F.binary_cross_entropy_with_logits(logits_BK, labels_BK.to(logits_BK.dtype))


class LogitsAveragePrecision(MultilabelAveragePrecision):
    """Mean over the labels of the average precision, of logits; torchmetrics would take small ones as probabilities."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds.sigmoid(), target)


class LogitsF1(MultilabelF1Score):
    """Mean over the labels of the F1 score at a probability of 0.5, of logits."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds.sigmoid(), target)

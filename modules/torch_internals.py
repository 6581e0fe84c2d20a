"""The parts of torch and torchmetrics that litlab uses although they are not documented, tried with 2.10 and 2.15; 1.9.

A later version may change them: tests/pipelines/runtime/test_internals.py fails then, and names the part.

- `_check_input_dim`: the only difference between torch's batch norm layers.
- `aten.mkldnn_rnn_layer`, `aten._trilinear`: an LSTM on a CPU and a bilinear form, which torch's counter leaves out.
- `Metric._update_count`: a metric that continues in the middle of an epoch, which torchmetrics cannot save.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

LSTM_ON_CPU, BILINEAR = torch.ops.aten.mkldnn_rnn_layer, torch.ops.aten._trilinear


class AnyBatchNorm(nn.BatchNorm2d):
    """Batch norm of inputs of any shape (B, C, ...), in place of BatchNorm1d, BatchNorm2d and BatchNorm3d alike."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any shape."""


def set_accumulated(metric: Metric, values: Mapping[str, Any], count: int) -> None:
    """Set what a metric has accumulated, its `metric_state`, in a number of updates."""
    for name, value in values.items():
        on_device = [item.to(metric.device) for item in value] if isinstance(value, list) else value.to(metric.device)
        setattr(metric, name, on_device)
    metric._update_count = count

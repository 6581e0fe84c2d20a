"""The parts of torch that litlab uses although they are not documented, tried with 2.10 and 2.15.

A later version may change them: tests/pipelines/runtime/test_internals.py fails then, and names the part.

- `_check_input_dim`: the only difference between torch's batch norm layers.
- `aten.mkldnn_rnn_layer`, `aten._trilinear`: an LSTM on a CPU and a bilinear form, which torch's counter leaves out.
"""

import torch
from torch import Tensor, nn

LSTM_ON_CPU, BILINEAR = torch.ops.aten.mkldnn_rnn_layer, torch.ops.aten._trilinear


class AnyBatchNorm(nn.BatchNorm2d):
    """Batch norm of inputs of any shape (B, C, ...), in place of BatchNorm1d, BatchNorm2d and BatchNorm3d alike."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any shape."""

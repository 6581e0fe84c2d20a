"""Synchronised batch norm on any device.

Shapes: C channels.
"""

from typing import Any, final

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins import TorchSyncBatchNorm
from torch import Tensor, distributed, nn

from modules.torch_internals import AnyBatchNorm

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@final
class SyncedBatchNorm(AnyBatchNorm):
    """Batch norm over the global batch of all processes, on any device. torch's `SyncBatchNorm` supports GPUs only.

    A process may have no examples: it contributes 0 to the sums. In evaluation it is ordinary batch norm.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and distributed.is_initialized()):
            return super().forward(input)
        dims = [dim for dim in range(input.ndim) if dim != 1]
        count = torch.tensor(float(input.numel() // input.shape[1]))
        distributed.all_reduce(count)
        mean_C = _sum_over_processes(input.float().sum(dims)) / count
        centred = input - _per_channel(mean_C, input)
        var_C = _sum_over_processes(centred.square().sum(dims)) / count
        self._update_running_statistics(mean_C.detach(), var_C.detach() * count / (count - 1))
        normalised = centred * _per_channel((var_C + self.eps).rsqrt(), input)
        if self.weight is not None:
            normalised = normalised * _per_channel(self.weight, input) + _per_channel(self.bias, input)
        return normalised.to(input.dtype)

    def _update_running_statistics(self, mean_C: Tensor, var_C: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        factor = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C, factor)
        self.running_var.lerp_(var_C, factor)


class _AllReduceSum(torch.autograd.Function):
    """Sum over all processes. Its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _sum_over_processes(gradient)


def _sum_over_processes(values: Tensor) -> Tensor:
    """Return the sum over all processes, differentiably."""
    total: Tensor = _AllReduceSum.apply(values)
    return total


def _per_channel(values_C: Tensor, input: Tensor) -> Tensor:
    """Reshape per-channel values so that they broadcast over an input of shape (B, C, ...)."""
    return values_C.view(-1, *[1] * (input.ndim - 2))


class SyncBatchNorm(TorchSyncBatchNorm):
    """Lightning plugin for `trainer.sync_batchnorm`: torch's layers on GPUs, `SyncedBatchNorm` on CPUs."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Replace all batch norm layers of a module by synchronised ones."""
        assert isinstance(model, LightningModule)
        if model.trainer.strategy.root_device.type != "cpu":
            return super().apply(model)
        for layer in model.modules():
            if isinstance(layer, BATCH_NORMS):
                layer.__class__ = SyncedBatchNorm  # keeps weights and running statistics
        return model

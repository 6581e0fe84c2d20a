"""Batch norm over the global batch, whatever the device."""

from typing import final

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from torch import Tensor, distributed, nn
from torch.distributed.nn import functional as together
from torch.nn.modules.batchnorm import _BatchNorm


@final
class SyncedBatchNorm(_BatchNorm):
    """torch's synchronised batch norm, which is for GPUs only, written out: mean and variance of all processes.

    A process may have no example: it adds nothing, and takes part. In evaluation it is any batch norm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any: the layer that was here before would have refused others."""

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and distributed.is_initialized()):
            return super().forward(input)
        dims = [dim for dim in range(input.ndim) if dim != 1]
        count = torch.tensor(float(input.numel() // input.shape[1]))
        distributed.all_reduce(count)
        mean_C = _sum(input.float().sum(dims)) / count
        centred = input - _along(mean_C, input)
        var_C = _sum(centred.square().sum(dims)) / count
        self._remember(mean_C.detach(), var_C.detach() * count / (count - 1))
        normal = centred * _along((var_C + self.eps).rsqrt(), input)
        normal = normal if self.weight is None else normal * _along(self.weight, input) + _along(self.bias, input)
        return normal.to(input.dtype)

    def _remember(self, mean_C: Tensor, var_C: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        factor = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C, factor)
        self.running_var.lerp_(var_C, factor)


def _sum(values_C: Tensor) -> Tensor:
    """Over all processes, with a gradient."""
    total_C: Tensor = together.all_reduce(values_C)  # type: ignore[no-untyped-call]
    return total_C


def _along(values_C: Tensor, input: Tensor) -> Tensor:
    """Values of channels, for each position of (B, C, ...)."""
    return values_C.view(-1, *[1] * (input.ndim - 2))


class SyncBatchNorm(TorchSyncBatchNorm):
    """What `trainer.sync_batchnorm` does with a module: on GPUs torch's own layers, on CPUs those of this file."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Have all batch norms of a module see the global batch."""
        assert isinstance(model, LightningModule)
        if model.trainer.strategy.root_device.type != "cpu":
            return super().apply(model)
        for layer in model.modules():
            if isinstance(layer, _BatchNorm):
                layer.__class__ = SyncedBatchNorm  # the same weights and averages, another forward pass
        return model

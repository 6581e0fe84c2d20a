"""The model that a run leaves behind: data in as they are, outputs out; the statistics of its data are inside."""

import copy

import torch
from lightning.pytorch import LightningModule
from torch import nn


def exportable(normalize: nn.Module | None, model: LightningModule) -> nn.Module:
    """A copy of a trained model behind the normalisation it was trained with; on the CPU, in evaluation mode."""
    trainer, model._trainer = model._trainer, None  # the copy must not take the trainer and all its data along
    try:
        layers = [model] if normalize is None else [normalize, model]
        copied = copy.deepcopy(nn.Sequential(*layers)).cpu().float().eval()
        return copied.to(memory_format=torch.contiguous_format)  # torch.export warns of weights in any other
    finally:
        model._trainer = trainer

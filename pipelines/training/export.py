"""Export a trained model with its normalisation inside, so that it takes raw inputs."""

import copy

import torch
from lightning.pytorch import LightningModule
from torch import nn


def exportable(normalize: nn.Module | None, model: LightningModule) -> nn.Module:
    """Return a copy of a model, preceded by the normalisation it was trained with; on the CPU, in evaluation mode."""
    trainer, model._trainer = model._trainer, None  # do not copy the trainer with all its data
    try:
        layers = [model] if normalize is None else [normalize, model]
        copied = copy.deepcopy(nn.Sequential(*layers)).cpu().float().eval()
        return copied.to(memory_format=torch.contiguous_format)  # torch.export warns of weights in any other format
    finally:
        model._trainer = trainer

"""Export a trained model with its normalisation inside, so that it takes raw inputs."""

import copy

import torch
from lightning.pytorch import LightningModule
from torch import nn

from modules.base import trainer_of


def exportable(normalize: nn.Module | None, model: LightningModule) -> nn.Module:
    """Return a copy of a model, preceded by the normalisation it was trained with; on the CPU, in evaluation mode."""
    trainer = trainer_of(model)
    model.trainer = None  # do not copy the trainer with all its data
    try:
        layers = [model] if normalize is None else [normalize, model]
        copied = copy.deepcopy(nn.Sequential(*layers)).cpu().float().eval()
        return copied.to(memory_format=torch.contiguous_format)  # torch.export warns of weights in any other format
    finally:
        model.trainer = trainer

"""The model that a run leaves behind: uint8 pixels in, logits out, with the statistics of its training data inside."""

import copy

from lightning.pytorch import LightningModule
from torch import nn


def pixels_to_logits(normalize: nn.Module, model: LightningModule) -> nn.Module:
    """A copy of a trained model behind the normalisation it was trained with; on the CPU, in evaluation mode."""
    trainer, model._trainer = model._trainer, None  # the copy must not take the trainer and all its data along
    try:
        return copy.deepcopy(nn.Sequential(normalize, model)).cpu().eval()
    finally:
        model._trainer = trainer

"""The batches of trainings that run together."""

import pytest
import torch
from lightning.pytorch import Trainer

from datamodules.digits import Digits
from sweeps.workers.stacked_data import StackedData


class NoisyDigits(Digits):
    def augment(self, images_BCHW):
        return images_BCHW + torch.randint(0, 9, images_BCHW.shape, dtype=torch.uint8)


class ShiftedDigits(Digits):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        images, labels = super().on_after_batch_transfer(batch, dataloader_idx)
        return images + torch.rand(()), labels


@pytest.mark.parametrize(("kind", "is_random"), [(Digits, False), (NoisyDigits, True), (ShiftedDigits, True)])
def test_trials_do_not_share_batches_that_a_subclass_augments(kind, is_random):
    data = kind()
    data.setup("fit")
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    assert StackedData(data, trainer).is_random == is_random

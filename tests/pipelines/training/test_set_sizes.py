"""Sizes of the sets of loaders that are not litlab's."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pipelines.training.set_sizes import describe_loaders

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.ones(6, 32))


class Describes(Callback):
    def on_train_start(self, trainer, pl_module):
        self.told = describe_loaders(trainer)


def rows(count):
    return DataLoader(
        TensorDataset(torch.ones(count, 32)), 4, collate_fn=lambda rows: torch.stack([row[0] for row in rows])
    )


@pytest.mark.parametrize(
    ("train", "options", "told"),
    [
        (rows(10), {}, "10 training examples in 3 batches, 4 validation examples in 1 batch"),
        (rows(10), {"limit_train_batches": 2}, "2 training batches, 4 validation examples in 1 batch"),
        (DataLoader(Stream(), 4), {}, "4 validation examples in 1 batch"),
        (rows(4), {"limit_val_batches": 0}, "4 training examples in 1 batch"),
    ],
    ids=["both", "limited", "a stream", "no validation"],
)
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_sizes_are_told_as_far_as_the_loaders_know_them(train, options, told):
    describes = Describes()
    trainer = Trainer(max_steps=1, accelerator="cpu", callbacks=[describes], **QUIET, **options)
    trainer.fit(BoringModel(), train, rows(4))
    assert describes.told == told

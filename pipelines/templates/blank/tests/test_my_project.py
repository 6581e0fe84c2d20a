from collections import UserList

from lightning.pytorch import Trainer
from my_project.data import Data
from my_project.model import Model


def test_the_model_learns_one_batch_by_heart():
    batch = next(iter(Data(batch_size=16).train_dataloader()))
    loader = UserList([batch])  # a plain list would be several loaders
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=100, accelerator="cpu", **quiet)
    trainer.fit(Model(hidden=64, lr=1.0), loader, loader)
    assert trainer.callback_metrics["train/loss"] < 0.1

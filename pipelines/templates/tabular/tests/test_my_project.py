from collections import UserList

from lightning.pytorch import Trainer
from my_project.data import Table
from my_project.model import Regression


def test_the_network_learns_one_batch_by_heart():
    data = Table(batch_size=16)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    loader = UserList([batch])  # a plain list would be several loaders
    model = Regression(num_features=10, hidden=64, lr=0.02)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=200, accelerator="cpu", **quiet)
    trainer.fit(model, loader, loader)
    assert trainer.callback_metrics["train/loss"] < 0.05

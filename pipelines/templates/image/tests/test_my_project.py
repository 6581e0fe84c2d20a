from collections import UserList
from functools import partial

import torch
from lightning.pytorch import Trainer
from my_project.data import Images
from my_project.model import ConvNet


def test_the_network_learns_one_batch_by_heart():
    data = Images(batch_size=32)
    data.setup("fit")
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    loader = UserList([batch])  # a plain list would be several loaders
    model = ConvNet(data.input_shape, data.num_classes, optimizer=partial(torch.optim.Adam, lr=0.01))
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=30, accelerator="cpu", **quiet)
    trainer.fit(model, loader, loader)
    assert trainer.callback_metrics["train/acc"] == 1

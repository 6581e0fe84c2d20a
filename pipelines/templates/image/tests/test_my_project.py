from functools import partial

import torch
from lightning.pytorch import Trainer
from my_project.data import Images
from my_project.model import ConvNet


def test_the_network_learns_one_batch_by_heart(tmp_path):
    data = Images(batch_size=32)
    model = ConvNet(data.input_shape, data.num_classes, optimizer=partial(torch.optim.Adam, lr=0.01))
    trainer = Trainer(max_epochs=30, overfit_batches=1, accelerator="cpu", logger=False, default_root_dir=tmp_path)
    trainer.fit(model, data)
    assert trainer.callback_metrics["train/acc"] == 1

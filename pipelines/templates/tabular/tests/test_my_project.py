from lightning.pytorch import Trainer
from my_project.data import Table
from my_project.model import Regression


def test_the_network_learns_one_batch_by_heart(tmp_path):
    model = Regression(num_features=10, hidden=64, lr=0.02)
    trainer = Trainer(max_epochs=200, overfit_batches=1, accelerator="cpu", logger=False, default_root_dir=tmp_path)
    trainer.fit(model, Table(batch_size=16))
    assert trainer.callback_metrics["train/loss"] < 0.05

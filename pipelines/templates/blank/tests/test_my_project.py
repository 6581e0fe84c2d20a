from lightning.pytorch import Trainer
from my_project.data import Data
from my_project.model import Model


def test_the_model_learns_one_batch_by_heart(tmp_path):
    trainer = Trainer(max_epochs=100, overfit_batches=1, accelerator="cpu", logger=False, default_root_dir=tmp_path)
    trainer.fit(Model(hidden=64, lr=1.0), Data(batch_size=16))
    assert trainer.callback_metrics["train/loss"] < 0.1

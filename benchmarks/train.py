"""One training as a plain script, as a user would write it without `litlab sweep`; see sweep_throughput.py."""

import argparse
from functools import partial

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import MLFlowLogger

from datamodules.digits import Digits
from datamodules.mnist import MNIST
from modules.mlp import MLP


def main() -> None:
    """Train, validate and log to MLflow."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--dropout", type=float)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--tracking-uri")
    options = parser.parse_args()
    seed_everything(0)
    if options.data_dir:
        data, hidden = MNIST(data_dir=options.data_dir, batch_size=options.batch_size), (512, 256)
    else:
        data, hidden = Digits(batch_size=options.batch_size), (128, 64)
    optimizer = partial(torch.optim.Adam, lr=options.lr, fused=True)
    model = MLP(
        input_shape=data.input_shape, num_classes=10, hidden=hidden, dropout=options.dropout, optimizer=optimizer
    )
    logger = MLFlowLogger(experiment_name="plain", tracking_uri=options.tracking_uri)
    logger.log_hyperparams(vars(options))
    checkpoint = ModelCheckpoint(monitor="val/acc", mode="max")
    trainer = Trainer(max_epochs=options.epochs, logger=logger, callbacks=[checkpoint], enable_progress_bar=False)
    trainer.fit(model, data)
    print("best", float(checkpoint.best_model_score))


if __name__ == "__main__":
    main()

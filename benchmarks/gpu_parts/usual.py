"""An experiment as in tutorials: a data set with transforms per image, a DataLoader with workers, a LightningModule."""

import os
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import MLFlowLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MulticlassAccuracy
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from datamodules.base import ImageDataModule
from datamodules.sets import TensorSet
from gpu_parts.callbacks import EpochStarts
from gpu_parts.data import full_data
from gpu_parts.place import Place
from modules.base import Classifier
from pipelines.config.cli import parse_config

MAX_WORKERS = 8


class Images(Dataset[tuple[Any, int]]):
    """Images of a set, each transformed when it is fetched, as torchvision's data sets do it."""

    def __init__(self, part: TensorSet, transform: transforms.Compose) -> None:
        self._images, self._labels, self._transform = part.inputs, part.targets.tolist(), transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self._transform(to_pil_image(self._images[index])), self._labels[index]


class Usual(LightningModule):
    """A classifier that logs its loss in each step, and accuracies with torchmetrics."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.net: nn.Module = model.net  # type: ignore[assignment]
        self._optimizer = model._optimizer
        self.train_acc, self.val_acc = MulticlassAccuracy(10), MulticlassAccuracy(10)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        logits = self.net(x)
        loss = F.cross_entropy(logits, y)
        self.train_acc(logits, y)
        self.log("train_loss", loss, prog_bar=True)
        self.log("train_acc", self.train_acc, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        logits = self.net(x)
        self.val_acc(logits, y)
        self.log("val_loss", F.cross_entropy(logits, y), prog_bar=True)
        self.log("val_acc", self.val_acc, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._optimizer(self.parameters())


def train(place: Place, experiment: str, epochs: int) -> None:
    """Train an experiment; `EpochStarts` records its epochs."""
    data, model = parse_config("fit", [experiment, *full_data(place, experiment)]).build()
    assert isinstance(data, ImageDataModule)
    assert isinstance(model, Classifier)
    data.setup("fit")
    channels = data.input_shape[0]
    final = [transforms.ToTensor(), transforms.Normalize((0.5,) * channels, (0.25,) * channels)]
    crop = [transforms.RandomCrop(data.input_shape[1:], padding=data.crop_padding)] if data.crop_padding else []
    flip = [transforms.RandomHorizontalFlip()] if data.flip else []
    train_set = Images(data.train_set, transforms.Compose([*crop, *flip, *final]))
    val_set = Images(data.val_set, transforms.Compose(final))
    options: dict[str, Any] = {"num_workers": workers(), "pin_memory": place.device == "cuda"}
    options["persistent_workers"] = workers() > 0
    trainer = Trainer(
        max_epochs=epochs,
        accelerator=place.device,
        devices=1,
        logger=MLFlowLogger(experiment, tracking_uri=place.uri),
        callbacks=[EpochStarts()],
        default_root_dir=place.folder,
        enable_progress_bar=False,
    )
    trainer.fit(
        Usual(model),
        DataLoader(train_set, batch_size=data.batch_size, shuffle=True, **options),
        DataLoader(val_set, batch_size=500, **options),
    )


def workers() -> int:
    """Return the number of processes that load data."""
    return min(MAX_WORKERS, (os.cpu_count() or 1) // 2)

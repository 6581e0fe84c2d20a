# %% [markdown]
# # Your own model
#
# litlab trains any `LightningModule` on any data that Lightning accepts. This notebook writes a small convolutional
# network in plain Lightning and hands it to litlab as an object. No YAML file is needed.

# %%
from typing import Any

import torch
from lightning.pytorch import LightningModule
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split

import litlab

# %% [markdown]
# ## Data
#
# scikit-learn has 1,797 scans of handwritten digits with 8x8 pixels. They are divided into three parts: the network
# learns from `train`, `val` decides which epoch is best, and `test` is used once, at the end.
#
# The split uses a fixed seed, so that all runs share it.

# %%
pixels, digits = load_digits(return_X_y=True)
images = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
examples = TensorDataset(images, torch.tensor(digits))
train, val, test = random_split(examples, [1237, 200, 360], torch.Generator().manual_seed(0))
data = {
    "train": DataLoader(train, batch_size=64, shuffle=True),
    "val": DataLoader(val, batch_size=200),
    "test": DataLoader(test, batch_size=360),
}

# %% [markdown]
# ## Model
#
# This is an ordinary `LightningModule`; nothing in it belongs to litlab. `save_hyperparameters` records the arguments,
# which litlab shows as the configuration of the run. The names of the metrics are up to you.


# %%
class DigitNet(LightningModule):
    def __init__(self, width: int = 8, lr: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(width * 16, 10)
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.measure(batch, "train")

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.measure(batch, "val")

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.measure(batch, "test")

    def measure(self, batch: list[Tensor], part: str) -> Tensor:
        images, digits = batch
        logits = self(images)
        loss = cross_entropy(logits, digits)
        correct = (logits.argmax(1) == digits).float().mean()
        self.log_dict({f"{part}_loss": loss, f"{part}_acc": correct}, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])


# %% [markdown]
# ## Train
#
# `trainer` has the arguments of Lightning's `Trainer`; litlab makes the Trainer itself. `monitor` names the metric that
# selects the best epoch, and `name` is the experiment under which the run is found again.
#
# The model is given as a function, `lambda: DigitNet()`. litlab calls it after it has set the seed, so that the first
# weights depend on the seed only. With an object, `model=DigitNet()`, the weights would be those that you made.

# %%
settings: dict[str, Any] = {"trainer": {"max_epochs": 8}, "overrides": {"monitor": "val_acc"}, "name": "digit-net"}
run = litlab.fit(model=lambda: DigitNet(), data=data, seed=0, **settings)
run

# %% [markdown]
# The run is like any other: it has a history, a configuration, files, and a best epoch.

# %%
axes = run.history()[["train_acc", "val_acc"]].plot(ylabel="accuracy")

# %%
run.config["model"]

# %% [markdown]
# ## Another width
#
# Is a wider network better? One run of each says little. `seeds=5` trains five of each, and `litlab.sweep` searches the
# arguments of a function that makes a model; `compare-and-sweep` explains both.

# %%
wider = litlab.fit(model=lambda: DigitNet(width=32), data=data, seed=0, **settings)
litlab.compare("digit-net")[["params.model.width", "mean", "n", "parameters"]]

# %% [markdown]
# ## Use the trained network
#
# `run.model()` returns your own class with the weights of the best epoch, in evaluation mode.

# %%
model = run.model()
images, digits = next(iter(data["test"]))
with torch.no_grad():
    predicted = model(images).argmax(1)
print("true     ", digits[:20].tolist())
print("predicted", predicted[:20].tolist())

# %% [markdown]
# ## In a file
#
# A class that is defined in a notebook exists only there. Once it has settled, move it to a file such as
# `my_project/model.py`. Then the command line can train it, too, and a search can run several trials at a time.
# `litlab new my-project` makes a folder with all the files to begin with.

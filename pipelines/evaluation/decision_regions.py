"""Decision regions of classifiers of points in the plane.

Shapes: N points of a grid, R rows and C columns of it.
"""

from typing import Any, TypeGuard

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from datamodules.in_memory import InMemoryDataModule
from pipelines.checkpoints.files import STATE_KEY

SIDE = 150  # points of a grid, per side
MARGIN = 0.1  # around the training points, as a fraction of their extent


def is_plane(data: LightningDataModule | None) -> TypeGuard[InMemoryDataModule]:
    """Return whether the inputs are points of the plane, of two classes."""
    return isinstance(data, InMemoryDataModule) and data.input_shape == (2,) and data.num_classes == 2


class Plane:
    """A grid of points over the part of the plane in which the training points lie.

    Attributes:
        points_N2: The grid, row by row from the lower left corner.
        corners: Left, right, lower, upper end.
    """

    def __init__(self, data: InMemoryDataModule) -> None:
        low_2, high_2 = data.train_set.inputs.amin(0), data.train_set.inputs.amax(0)
        margin_2 = MARGIN * (high_2 - low_2)
        left, lower = (low_2 - margin_2).tolist()
        right, upper = (high_2 + margin_2).tolist()
        y_RC, x_RC = torch.meshgrid(
            torch.linspace(lower, upper, SIDE), torch.linspace(left, right, SIDE), indexing="ij"
        )
        self.points_N2 = torch.stack([x_RC, y_RC], 2).flatten(0, 1)
        self.corners = (left, right, lower, upper)

    def as_grid(self, values_N: Tensor) -> NDArray[np.float32]:
        """Return values of the grid's points as an array of shape (R, C), its first row the lowest."""
        return values_N.float().view(SIDE, SIDE).numpy()


class DecisionRegions(Callback):
    """Save the probability of the second class over the plane: after the first, the best and the last epoch.

    Must come after the callback that saves checkpoints, which knows the best epoch. The grids are part of a checkpoint.
    """

    def __init__(self, data: InMemoryDataModule) -> None:
        self.plane = Plane(data)
        self._probabilities: dict[int, Tensor] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.record(trainer, pl_module, trainer.current_epoch)

    def record(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        """Save the grid of an epoch; the module has the weights of that epoch."""
        points_N2 = self.plane.points_N2.to(pl_module.device, next(pl_module.parameters()).dtype)
        with trainer.precision_plugin.forward_context():
            logits_N2 = pl_module(points_N2)
        self._probabilities[epoch] = logits_N2.float().softmax(1)[:, 1].half().cpu()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if (state := checkpoint.get(STATE_KEY)) is None:
            return
        epochs = sorted(self._probabilities)
        needed = {*epochs[:1], *epochs[-1:], state["best_epoch"]}
        self._probabilities = {epoch: self._probabilities[epoch] for epoch in epochs if epoch in needed}
        state["regions"] = self._probabilities

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._probabilities = dict(checkpoint.get(STATE_KEY, {}).get("regions", {}))

    def grids(self, selected_epoch: int) -> dict[str, NDArray[np.float32]]:
        """Return the grids of the first, the selected and the last epoch, by title."""
        first, last = min(self._probabilities), max(self._probabilities)
        titles = {first: "first epoch", last: "last epoch", selected_epoch: "selected epoch"}
        return {f"{titles[epoch]}, {epoch}": self.plane.as_grid(self._probabilities[epoch]) for epoch in sorted(titles)}

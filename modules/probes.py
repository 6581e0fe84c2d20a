"""Callbacks that log more about a network than its loss and accuracy, on the validation and test set.

Shapes: B batch size, C channels, H rows, W columns, U units of a layer, N outputs of a unit, D weights of a unit.
"""

from abc import ABC
from typing import Any, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torchmetrics import MeanMetric, Metric

from modules.base import Classifier
from modules.layers import ACTIVATIONS

WeightedLayer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
IDENTICAL_TOLERANCE = 1e-4  # times a layer's largest weight; identical units differ by rounding, others by far more
SHIFTS = (1, 2)  # pixels


class Probe(Callback, ABC):
    """Base class of callbacks that measure during evaluation. `litlab test` and `validate` run no other callbacks."""


class OutputRange(Metric):
    """Smallest and largest output of each unit, over examples and positions.

    Args:
        units: Number of units, U.
    """

    full_state_update = False
    low: Tensor
    high: Tensor

    def __init__(self, units: int) -> None:
        super().__init__()
        self.add_state("low", torch.full((units,), torch.inf), dist_reduce_fx="min")
        self.add_state("high", torch.full((units,), -torch.inf), dist_reduce_fx="max")

    def update(self, outputs: Tensor) -> None:
        """Add outputs of shape (B, U) or (B, U, H, W)."""
        outputs_UN = outputs.float().transpose(0, 1).flatten(1)
        assert len(outputs_UN) == len(self.low)
        self.low = torch.minimum(self.low, outputs_UN.amin(1))
        self.high = torch.maximum(self.high, outputs_UN.amax(1))

    def compute(self) -> Tensor:
        """Return whether each unit has the same output for every example, shape (U,)."""
        return self.low == self.high


@final
class DeadUnits(Probe):
    """Log dead and distinct units of each hidden layer, numbered from 1, after each validation.

    `val/dead_units_1` is the fraction of units of the first hidden layer whose activation is the same for every
    validation example (for a dead ReLU, always 0), `val/dead_units` the fraction over all hidden layers.
    `val/distinct_units_1` is the number of its units whose weights differ from those of all previous units.
    """

    def __init__(self) -> None:
        self._ranges: list[OutputRange] = []
        self._hooks: list[RemovableHandle] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        layers = hidden_layers(pl_module)
        self._ranges = [OutputRange(len(_weights_UD(layer))).to(pl_module.device) for layer, _ in layers]
        self._hooks = [
            activation.register_forward_hook(lambda _layer, _inputs, outputs, range_=range_: range_.update(outputs))
            for range_, (_, activation) in zip(self._ranges, layers, strict=True)
        ]

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if dataloader_idx:  # the validation set is complete; this is the training set, evaluated again
            self._remove_hooks()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._remove_hooks()
        dead = [range_.compute().float() for range_ in self._ranges]
        values = {f"val/dead_units_{number}": fractions.mean() for number, fractions in enumerate(dead, 1)}
        for number, (layer, _) in enumerate(hidden_layers(pl_module), 1):
            values[f"val/distinct_units_{number}"] = torch.tensor(float(count_distinct(layer)))
        if dead:
            values["val/dead_units"] = torch.cat(dead).mean()
        pl_module.log_dict(values, sync_dist=True)  # the same on all processes

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._remove_hooks()

    def _remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()


# Configs of earlier versions name this class by its former name, `modules.probes.Units`.
Units = DeadUnits


def hidden_layers(module: nn.Module) -> list[tuple[WeightedLayer, nn.Module]]:
    """Return each weighted layer that an activation follows, with the activation; not the output layer."""
    leaves = [layer for layer in module.modules() if not list(layer.children())]
    indices = [index for index, layer in enumerate(leaves) if isinstance(layer, WeightedLayer)]
    pairs: list[tuple[WeightedLayer, nn.Module]] = []
    for index in indices[:-1]:
        after = next((layer for layer in leaves[index + 1 :] if not isinstance(layer, BATCH_NORMS)), None)
        layer = leaves[index]
        if isinstance(layer, WeightedLayer) and after is not None and isinstance(after, tuple(ACTIVATIONS.values())):
            pairs.append((layer, after))
    return pairs


def _weights_UD(layer: WeightedLayer) -> Tensor:
    weight = layer.weight.detach().float()
    return (weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight).flatten(1)


@torch.no_grad()
def count_distinct(layer: WeightedLayer) -> int:
    """Return how many units of a layer have weights and bias that differ from those of all previous units."""
    weights_UD = _weights_UD(layer)
    if layer.bias is not None:
        weights_UD = torch.cat([weights_UD, layer.bias.detach().float()[:, None]], 1)
    distances_UU = torch.cdist(weights_UD, weights_UD, p=torch.inf)
    identical_UU = distances_UU <= IDENTICAL_TOLERANCE * weights_UD.abs().max()
    return int((identical_UU.tril(-1).sum(1) == 0).sum())


@final
class ShiftSensitivity(Probe):
    """Log how many predictions change when the image is shifted, on the validation and the test set.

    `test/changed_by_shift_1` is the fraction of images whose predicted class changes when the image is shifted by one
    pixel down and to the right, with edge pixels repeated; `test/changed_by_shift_2` by two pixels.
    """

    def __init__(self) -> None:
        self._changed: dict[int, MeanMetric] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        shape = getattr(trainer.datamodule, "input_shape", None)  # type: ignore[attr-defined]
        if not isinstance(pl_module, Classifier) or (shape is not None and len(shape) != 3):
            raise ValueError("modules.probes.ShiftSensitivity supports only classifiers of images")

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._changed = {pixels: MeanMetric().to(pl_module.device) for pixels in SHIFTS}

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if dataloader_idx:
            return
        predicted_B, dtype = outputs["logits"].argmax(1), next(pl_module.parameters()).dtype
        for pixels, changed in self._changed.items():
            with trainer.precision_plugin.forward_context():  # the same precision as in the evaluation step
                shifted_B = pl_module(shift(batch[0], pixels).to(dtype)).argmax(1)
            changed.update((shifted_B != predicted_B).float())

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log("val", pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log("test", pl_module)

    def _log(self, split: str, pl_module: LightningModule) -> None:
        fractions = {f"{split}/changed_by_shift_{p}": changed.compute() for p, changed in self._changed.items()}
        pl_module.log_dict(fractions, sync_dist=True)  # the same on all processes


# Configs of earlier versions name this class by its former name, `modules.probes.Shifts`.
Shifts = ShiftSensitivity


def shift(images_BCHW: Tensor, pixels: int) -> Tensor:
    """Shift images down and to the right, repeating the edge pixels."""
    H, W = images_BCHW.shape[2:]
    return nn.functional.pad(images_BCHW, (pixels, 0, pixels, 0), mode="replicate")[:, :, :H, :W]

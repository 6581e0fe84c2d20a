"""Callbacks that measure what a network does on the validation and test set, beside its loss and accuracy.

Shapes: B examples of a batch, C channels, H rows, W columns, K classes, U units of a layer, D weights of a unit.
"""

from abc import ABC
from functools import partial
from typing import Any, final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torchmetrics import MeanMetric, Metric

from modules.base import Classifier
from modules.layers import ACTIVATIONS

Weighted = nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
ALIKE = 1e-4  # of a layer's largest weight: identical units drift apart by rounding, other ones by far more
SHIFTS = (1, 2)  # pixels


class Probe(Callback, ABC):
    """A callback that measures in evaluations; litlab's test keeps these callbacks, and no others."""


class OutputRange(Metric):
    """Smallest and largest output of each unit, over examples and positions."""

    full_state_update = False
    low: Tensor
    high: Tensor

    def __init__(self, units: int) -> None:
        super().__init__()
        self.add_state("low", torch.full((units,), torch.inf), dist_reduce_fx="min")
        self.add_state("high", torch.full((units,), -torch.inf), dist_reduce_fx="max")

    def update(self, outputs: Tensor) -> None:
        """Take outputs of shape (B, U) or (B, U, H, W)."""
        outputs_UN = outputs.float().transpose(0, 1).flatten(1)
        assert len(outputs_UN) == len(self.low)
        self.low = torch.minimum(self.low, outputs_UN.amin(1))
        self.high = torch.maximum(self.high, outputs_UN.amax(1))

    def compute(self) -> Tensor:
        """Whether each unit says the same to every example, shape (U,)."""
        return self.low == self.high


@final
class Units(Probe):
    """Counts dead and distinct units of each hidden layer, numbered from 1, after each validation.

    `val/dead_units_1` is the fraction of the layer's units whose activation is the same for every validation example
    (a dead ReLU: always 0); `val/distinct_units_1` is the number of units whose weights are unlike those of all others
    before them; `val/dead_units` is the fraction over all hidden layers.
    """

    def __init__(self) -> None:
        self._ranges: list[OutputRange] = []
        self._hooks: list[RemovableHandle] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        layers = hidden_layers(pl_module)
        self._ranges = [OutputRange(_units(layer)).to(pl_module.device) for layer, _ in layers]
        hooks = zip(self._ranges, layers, strict=True)
        self._hooks = [last.register_forward_hook(partial(_see, seen)) for seen, (_, last) in hooks]

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if dataloader_idx:  # the validation set is through; this is the training set, measured once more
            self._unhook()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._unhook()
        dead = [seen.compute().float() for seen in self._ranges]
        values = {f"val/dead_units_{number}": fractions.mean() for number, fractions in enumerate(dead, 1)}
        for number, (layer, _) in enumerate(hidden_layers(pl_module), 1):
            values[f"val/distinct_units_{number}"] = torch.tensor(float(count_distinct(layer)))
        if dead:
            values["val/dead_units"] = torch.cat(dead).mean()
        pl_module.log_dict(values, sync_dist=True)  # the same on all processes

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._unhook()

    def _unhook(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()


def _see(seen: OutputRange, layer: nn.Module, inputs: Any, outputs: Tensor) -> None:
    seen.update(outputs)


def hidden_layers(module: nn.Module) -> list[tuple[Weighted, nn.Module]]:
    """Layers with weights that an activation follows, with it; not the last one, whose units are the outputs."""
    leaves = [layer for layer in module.modules() if not list(layer.children())]
    weighted = [number for number, layer in enumerate(leaves) if isinstance(layer, Weighted)]
    found: list[tuple[Weighted, nn.Module]] = []
    for number in weighted[:-1]:
        after = next((layer for layer in leaves[number + 1 :] if not isinstance(layer, NORMS)), None)
        layer = leaves[number]
        if isinstance(layer, Weighted) and after is not None and isinstance(after, tuple(ACTIVATIONS.values())):
            found.append((layer, after))
    return found


def _units(layer: Weighted) -> int:
    """How many units a layer has."""
    return layer.weight.shape[1 if isinstance(layer, nn.ConvTranspose2d) else 0]


@torch.no_grad()
def count_distinct(layer: Weighted) -> int:
    """How many units of a layer have weights (and bias) unlike those of every unit before them."""
    weight = layer.weight.detach().float()
    weights_UD = (weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight).flatten(1)
    if layer.bias is not None:
        weights_UD = torch.cat([weights_UD, layer.bias.detach().float()[:, None]], 1)
    largest = torch.cdist(weights_UD, weights_UD, p=torch.inf)
    alike_UU = largest <= ALIKE * weights_UD.abs().max()
    return int((alike_UU.tril(-1).sum(1) == 0).sum())


@final
class Shifts(Probe):
    """How many predictions change when the image moves, on the validation and the test set.

    `test/changed_by_shift_1` is the fraction of images whose predicted class is another one once the image has moved
    one pixel down and to the right, the pixels of its edge repeated; `..._2` two pixels.
    """

    def __init__(self) -> None:
        self._changed: dict[int, MeanMetric] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        shape = getattr(trainer.datamodule, "input_shape", None)  # type: ignore[attr-defined]
        if not isinstance(pl_module, Classifier) or (shape is not None and len(shape) != 3):
            raise ValueError("modules.probes.Shifts is for classifiers of images")

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
        predicted_B, predicted_dtype = outputs["logits"].argmax(1), next(pl_module.parameters()).dtype
        for pixels, changed in self._changed.items():
            with trainer.precision_plugin.forward_context():  # as in the step that the prediction is from
                moved_B = pl_module(shift(batch[0], pixels).to(predicted_dtype)).argmax(1)
            changed.update((moved_B != predicted_B).float())

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log("val", pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log("test", pl_module)

    def _log(self, split: str, pl_module: LightningModule) -> None:
        fractions = {f"{split}/changed_by_shift_{p}": changed.compute() for p, changed in self._changed.items()}
        pl_module.log_dict(fractions, sync_dist=True)  # the same on all processes


def shift(images_BCHW: Tensor, pixels: int) -> Tensor:
    """Move images down and to the right; the pixels of the edge are repeated."""
    H, W = images_BCHW.shape[2:]
    return nn.functional.pad(images_BCHW, (pixels, 0, pixels, 0), mode="replicate")[:, :, :H, :W]

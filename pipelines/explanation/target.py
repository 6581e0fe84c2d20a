"""The network that is explained: frozen, in evaluation mode, with pixels in [0, 1] as input.

Shapes: N images, C channels, H rows, W columns, K classes.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from datamodules.images import read_image
from pipelines.explanation.sources import ImageSource
from pipelines.runtime.errors import UserError
from pipelines.tracking.store import StoredRun

LAYER_KINDS: dict[str, type[nn.Module] | tuple[type[nn.Module], ...]] = {
    "conv": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "fc": nn.Linear,
}


@dataclass
class Target:
    """A network to explain. It is frozen: only inputs have gradients.

    Attributes:
        name: The experiment, or the name of a published network.
        id: Short, for file names.
        run: The run that it comes from, if any.
        network: Its layers have the names that `litlab inspect` prints.
        normalize: Maps pixels in [0, 1], shape (N, C, H, W), to the network's input; differentiable.
        input_shape: Channels, rows, columns.
        classes: Names, in the order of the logits.
        data: Its images; None for published networks.
        device: The network's device; pixels have to be on it.
    """

    name: str
    id: str
    run: StoredRun | None
    network: nn.Module
    normalize: nn.Module
    input_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    data: ImageSource | None
    device: torch.device

    def __post_init__(self) -> None:
        for part in (self.network, self.normalize):
            part.to(self.device).eval().requires_grad_(False)
        for module in self.network.modules():
            if hasattr(module, "inplace"):
                module.inplace = False  # type: ignore[assignment]  # it would overwrite outputs that are recorded

    def logits(self, pixels_NCHW: Tensor) -> Tensor:
        """Return logits of shape (N, K)."""
        logits_NK: Tensor = self.network(self.normalize(pixels_NCHW))
        return logits_NK

    def probabilities(self, pixels_NCHW: Tensor) -> Tensor:
        """Return class probabilities of shape (N, K)."""
        return self.logits(pixels_NCHW).softmax(1)

    def pixels_to_logits(self) -> nn.Module:
        """Return normalisation and network as one module."""
        return nn.Sequential(self.normalize, self.network).eval()

    def class_index(self, name: str, option: str = "--class") -> int:
        """Return the index of a class, given by name or index.

        Args:
            name: What the user gave.
            option: Named in the error message.

        Raises:
            UserError: There is no such class.
        """
        if name in self.classes:
            return self.classes.index(name)
        if name.isdecimal() and int(name) < len(self.classes):
            return int(name)
        shown = ", ".join(self.classes[:20]) + (", ..." if len(self.classes) > 20 else "")
        raise UserError(f"{option} {name}: the classes are {shown}, or 0 to {len(self.classes) - 1}")

    def short_names(self) -> dict[str, str]:
        """Return conv1, conv2, ... and fc1, fc2, ... and the full names of these layers."""
        counts, names = dict.fromkeys(LAYER_KINDS, 0), {}
        for name, module in self.network.named_modules():
            for kind, types in LAYER_KINDS.items():
                if isinstance(module, types):
                    counts[kind] += 1
                    names[f"{kind}{counts[kind]}"] = name
        return names

    def layers_of_kind(self, kind: str) -> list[str]:
        """Return the short names of the convolutions ("conv") or the fully connected layers ("fc")."""
        return [name for name in self.short_names() if name.startswith(kind)]

    def layer(self, name: str) -> nn.Module:
        """Return a layer, by the name that `litlab inspect` prints, or by kind and order: conv1, conv2, fc1.

        Raises:
            UserError: There is no such layer.
        """
        short, modules = self.short_names(), dict(self.network.named_modules())
        layer: nn.Module | None = modules.get(short.get(name, name)) if name else None
        if layer is None:
            layers = {
                key: module for key, module in modules.items() if not isinstance(module, Metric | MetricCollection)
            }
            known = [*short, *(key for key, module in layers.items() if key and not list(module.children()))]
            suggestions = get_close_matches(name, known, n=3, cutoff=0.4)
            hint = f" (did you mean {' or '.join(suggestions)}?)" if suggestions else ""
            raise UserError(f"{self.name} has no layer {name!r}{hint}; it has {', '.join(known)}")
        return layer

    def activations(self, name: str, pixels_NCHW: Tensor) -> Tensor:
        """Return the output of a layer for pixels in [0, 1]; the first axis is N."""
        return self.layer_output(self.layer(name), self.normalize(pixels_NCHW))

    def layer_output(self, layer: nn.Module, inputs_NCHW: Tensor) -> Tensor:
        """Return the output of a layer for normalised inputs, differentiable with respect to them; first axis N.

        Raises:
            UserError: The layer is not called, or its output is not a tensor.
        """
        outputs: list[Tensor] = []

        def record_output(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                outputs.append(output.clone())  # the next function may work in place

        handle = layer.register_forward_hook(record_output)
        try:
            self.network(inputs_NCHW)
        finally:
            handle.remove()
        if not outputs:
            raise UserError(f"{type(layer).__name__} of {self.name} is not called, or its output is not a tensor")
        return outputs[-1]

    def test_set(self) -> tuple[Tensor, Tensor]:
        """Return uint8 pixels of shape (N, C, H, W) and classes of shape (N,) of the test set, on the CPU.

        The class is -1 where the data have none.

        Raises:
            UserError: The network comes without data, or a file is missing.
        """
        return self._images().test_set()

    def train_images(self, count: int) -> Tensor:
        """Return the first training images, uint8 pixels of shape (N, C, H, W), on the CPU.

        Raises:
            UserError: The network comes without data, or a file is missing.
        """
        return self._images().train_images(count)

    def read(self, path: Path) -> Tensor:
        """Read an image file as uint8 pixels of the input shape.

        Raises:
            ValueError, OSError: The file does not exist, or is not an image.
        """
        return read_image(path, self.input_shape) if self.data is None else self.data.read(path)

    def _images(self) -> ImageSource:
        if self.data is None:
            raise UserError(f"{self.name} comes without data: give image files, --image FILE")
        return self.data

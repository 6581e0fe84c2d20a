"""torchvision's classifiers."""

import re
from pathlib import Path
from typing import Any, final

import torch
from torch import nn
from torchvision import models

from modules.architecture import Architecture, InputFormat, Interpolation, State

INTERPOLATIONS: tuple[Interpolation, ...] = ("bilinear", "bicubic", "nearest")


def torchvision_names() -> list[str]:
    """Return the names of torchvision's classifiers."""
    names: list[str] = models.list_models(module=models)
    return names


@final
class TorchvisionNetwork(Architecture):
    """A classifier of torchvision, with the input that its default weights expect.

    Args:
        name: One of `torchvision_names()`.
        arguments: Of the function that builds it.
        file: The weights that it will have; None for the published ones. The name of a published file selects the
            input that its weights expect.
    """

    def __init__(self, name: str, arguments: dict[str, Any], file: Path | None = None) -> None:
        self.name, self._arguments = name, arguments
        published = models.get_model_weights(name)
        by_file = {weights.url.rpartition("/")[2]: weights for weights in published}
        weights = by_file.get(file.name if file else "", published.DEFAULT)
        preset = weights.transforms()
        interpolation: Interpolation = preset.interpolation.value
        assert interpolation in INTERPOLATIONS
        self.input_format = InputFormat(preset.crop_size[0], tuple(preset.mean), tuple(preset.std), interpolation)
        self.categories, self.source = tuple(weights.meta["categories"]), weights.url

    def build(self, image_size: int | None = None) -> nn.Module:
        options: dict[str, Any] = {}
        if self.name in ("googlenet", "inception_v3"):  # trained with pixels from -1 to 1; torchvision sets it too
            options = {"transform_input": True, "aux_logits": False, "init_weights": True}
        elif self.name.startswith("vit_"):
            options = {"image_size": image_size or self.input_format.size}
        network: nn.Module = models.get_model(self.name, **options | self._arguments)
        return network

    def cached(self) -> Path | None:
        path = Path(torch.hub.get_dir()) / "checkpoints" / self.source.rpartition("/")[2]
        return path if path.is_file() else None

    def download(self) -> State:
        file = Path(torch.hub.get_dir()) / "checkpoints" / self.source.rpartition("/")[2]
        try:
            state = torch.hub.load_state_dict_from_url(
                self.source, map_location="cpu", check_hash=True, weights_only=True
            )
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"cannot download the weights of {self.name} from {self.source} ({error}): put the file at {file}, or "
                "set model.weights to another file or model.pretrained to false"
            ) from error
        return self._with_current_names(state)

    def read(self, file: Path) -> State:
        return self._with_current_names(super().read(file))

    def _with_current_names(self, state: State) -> State:
        """Rename the layers of the published DenseNets, which have names of earlier versions: norm.1 for norm1."""
        if not self.name.startswith("densenet"):
            return state
        return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", key): value for key, value in state.items()}

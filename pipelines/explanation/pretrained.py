"""torchvision's classifiers, with weights that are on this machine; nothing is downloaded."""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.runtime.errors import UserError


class Standardize(nn.Module):
    """Pixels in [0, 1] to (pixel - mean) / std, per channel.

    Args:
        mean: Of each channel.
        std: Of each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        return (pixels_NCHW - self.mean) / self.std


def load(name: str, file: Path | None) -> tuple[nn.Module, nn.Module, tuple[int, int, int], tuple[str, ...]]:
    """Network, normalisation of pixels in [0, 1], shape of an image, and names of the classes.

    Args:
        name: As torchvision names it, such as alexnet.
        file: The weights; None looks where torch.hub keeps what it has downloaded.

    Raises:
        UserError: There is no such classifier, or its weights are not here, or do not fit.
    """
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        raise UserError(f"--torchvision {name}: no such classifier; there are {', '.join(names)}")
    published = {weights.url.rpartition("/")[2]: weights for weights in models.get_model_weights(name)}
    default = models.get_model_weights(name).DEFAULT
    path = file or Path(torch.hub.get_dir()) / "checkpoints" / default.url.rpartition("/")[2]
    if not path.is_file():
        instead = f"; it can be downloaded from {default.url}, and given as --weights FILE"
        raise UserError(f"{path}: no such file: the weights of {name}{instead}")
    weights = published.get(path.name, default)
    preset = weights.transforms()
    size = preset.crop_size[0]
    network = models.get_model(name, **_as_published(name, size))
    try:
        network.load_state_dict(_renamed(name, read(path)))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not the weights of {name} ({str(error).strip().splitlines()[0]})") from error
    return network, Standardize(preset.mean, preset.std), (3, size, size), tuple(weights.meta["categories"])


def _as_published(name: str, size: int) -> dict[str, Any]:
    """What torchvision changes in a network when it loads the weights itself."""
    if name in ("googlenet", "inception_v3"):  # trained elsewhere, with pixels from -1 to 1
        return {"transform_input": True, "init_weights": False}
    return {"image_size": size} if name.startswith("vit_") else {}


def _renamed(name: str, state: dict[str, Any]) -> dict[str, Any]:
    """The published DenseNets have names of layers that torchvision has given up: norm.1 for norm1."""
    if not name.startswith("densenet"):
        return state
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", key): value for key, value in state.items()}


def read(path: Path) -> dict[str, Any]:
    """What torch.save has written, without unpickling objects.

    Raises:
        UserError: The file is damaged, or holds anything but tensors and plain values.
    """
    try:
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        reason = next(iter(str(error).strip().splitlines()), "it is cut off")
        raise UserError(f"{path}: cannot be read ({reason})") from error
    return loaded

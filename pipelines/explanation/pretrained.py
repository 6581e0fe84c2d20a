"""torchvision's classifiers, with weights that are on this machine. Nothing is downloaded."""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipelines.runtime.errors import UserError


def load_classifier(name: str, file: Path | None) -> tuple[nn.Module, nn.Module, tuple[int, int, int], tuple[str, ...]]:
    """Load a classifier of torchvision.

    Args:
        name: torchvision's name, such as alexnet.
        file: The weights; None searches torch.hub's download folder.

    Returns:
        The network, the normalisation of pixels in [0, 1], the shape of an image, and the names of the classes.

    Raises:
        UserError: There is no such classifier, or its weights are missing or do not fit.
    """
    from torchvision import models, transforms

    names = models.list_models(module=models)
    if name not in names:
        raise UserError(f"--torchvision {name}: no such classifier; the classifiers are {', '.join(names)}")
    published = {weights.url.rpartition("/")[2]: weights for weights in models.get_model_weights(name)}
    default = models.get_model_weights(name).DEFAULT
    path = file or Path(torch.hub.get_dir()) / "checkpoints" / default.url.rpartition("/")[2]
    if not path.is_file():
        raise UserError(
            f"{path}: no such file: the weights of {name}. Download them from {default.url}, and give --weights FILE"
        )
    weights = published.get(path.name, default)
    preset = weights.transforms()
    size = preset.crop_size[0]
    network = models.get_model(name, **_model_options(name, size))
    try:
        network.load_state_dict(_with_current_names(name, read_weights(path)))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not the weights of {name} ({str(error).strip().splitlines()[0]})") from error
    return network, transforms.Normalize(preset.mean, preset.std), (3, size, size), tuple(weights.meta["categories"])


def _model_options(name: str, size: int) -> dict[str, Any]:
    """Return the options that torchvision sets when it loads the published weights itself."""
    if name in ("googlenet", "inception_v3"):  # trained with pixels from -1 to 1
        return {"transform_input": True, "init_weights": False}
    return {"image_size": size} if name.startswith("vit_") else {}


def _with_current_names(name: str, state: dict[str, Any]) -> dict[str, Any]:
    """Rename the layers of the published DenseNets, which have names of earlier versions: norm.1 for norm1."""
    if not name.startswith("densenet"):
        return state
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", key): value for key, value in state.items()}


def read_weights(path: Path) -> dict[str, Any]:
    """Read a file written by torch.save, without unpickling objects.

    Raises:
        UserError: The file is damaged, or contains anything but tensors and plain values.
    """
    try:
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        reason = next(iter(str(error).strip().splitlines()), "the file is truncated")
        raise UserError(f"{path}: cannot be read ({reason})") from error
    return loaded

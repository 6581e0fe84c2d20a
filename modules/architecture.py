"""A network for image classification that others have published: how it is built, its weights and its input.

Shapes: K classes.
"""

import pickle
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
Interpolation = Literal["bilinear", "bicubic", "nearest"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's weights and most others
CONTAINERS = ("state_dict", "model")  # keys of training scripts' files that hold the weights
AUXILIARY = ("aux", "AuxLogits")  # heads of GoogLeNet and Inception that only their training uses


@dataclass(frozen=True)
class InputFormat:
    """The images that a network was trained on.

    Attributes:
        size: Rows and columns.
        mean: Mean of each channel that is subtracted, in units of pixel / 255.
        std: Standard deviation of each channel that is divided by, in the same units.
        interpolation: How images were resized.
    """

    size: int
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    interpolation: Interpolation = "bilinear"


class Architecture(ABC):
    """A published network. Creating this object builds and downloads nothing.

    Attributes:
        name: As the user gave it.
        input_format: The images that it takes.
        categories: Names of the published classes; empty if unknown.
        source: Where its published weights are: an address; empty if there are none.
    """

    name: str
    input_format: InputFormat
    categories: tuple[str, ...] = ()
    source: str = ""

    @abstractmethod
    def build(self, image_size: int | None = None) -> nn.Module:
        """Build the network with random weights and its published head.

        Args:
            image_size: Rows and columns of the images, for networks that take one size; None for the published one.
        """

    @abstractmethod
    def cached(self) -> Path | None:
        """Return the file of the published weights if it has been downloaded, else None."""

    @abstractmethod
    def download(self) -> State:
        """Return the published weights; download them if they are missing.

        Raises:
            ValueError: They cannot be downloaded, or there are none. The message names the address.
        """

    def read(self, file: Path) -> State:
        """Read weights from a file.

        Raises:
            FileNotFoundError: It does not exist.
            ValueError: It is damaged, or contains anything but weights.
        """
        return read_weights(file)

    def heads(self, network: nn.Module) -> list[str]:
        """Return the names of the layers whose outputs are the classes."""
        return [last_layer(network)]


def replace_heads(network: nn.Module, heads: Sequence[str], num_classes: int) -> None:
    """Replace the last layers of a network by new ones with K outputs."""
    for head in heads:
        old, parent = network.get_submodule(head), network.get_submodule(head.rpartition(".")[0])
        new: nn.Module
        if isinstance(old, nn.Conv2d):
            new = nn.Conv2d(old.in_channels, num_classes, 1)
        elif isinstance(old, nn.Linear):
            new = nn.Linear(old.in_features, num_classes)
        else:
            raise ValueError(f"{head} is a {type(old).__name__}; only linear and convolutional heads can be replaced")
        setattr(parent, head.rpartition(".")[2], new)


def last_layer(network: nn.Module) -> str:
    """Return the name of the last linear layer or 1x1 convolution, which is the head of most classifiers.

    Raises:
        ValueError: There is none.
    """
    named: list[str] = [
        name
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))
    ]
    named = [name for name in named if name and not name.startswith(AUXILIARY)]
    if not named:
        raise ValueError(f"model.name: {type(network).__name__} has no linear layer or 1x1 convolution as its head")
    return named[-1]


def load_into(network: nn.Module, state: State, *, but: Sequence[str], source: str) -> None:
    """Load weights into a network, except for its heads.

    Args:
        network: Keeps its own heads.
        state: The weights. They may have heads of another size, and auxiliary heads.
        but: Names of the heads; with none, all weights are loaded.
        source: File or address of the weights, for messages.

    Raises:
        ValueError: They are weights of another network.
    """
    heads = tuple(f"{head}." for head in but)
    own = {key: value for key, value in network.state_dict().items() if not key.startswith(heads)}
    kept = {key: value for key, value in state.items() if not key.startswith(heads)}
    kept = {key: value for key, value in kept.items() if key in own or not key.startswith(AUXILIARY)}
    missing = [key for key in own if key not in kept]
    unknown = [key for key in kept if key not in own]
    wrong = [key for key in kept if key in own and kept[key].shape != own[key].shape]
    for reason, keys in (("lacks", missing), ("has the unknown weights", unknown), ("has another shape of", wrong)):
        if keys:
            raise ValueError(f"{source}: not the weights of {type(network).__name__}: it {reason} {keys[0]}")
    network.load_state_dict(kept, strict=False)


def read_weights(path: Path) -> State:
    """Read weights written by torch.save or safetensors, without unpickling objects.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is damaged, or contains anything but tensors and plain values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        reason = next(iter(str(error).strip().splitlines()), "the file is truncated")
        raise ValueError(f"{path}: cannot be read ({reason})") from error
    for key in CONTAINERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ValueError(f"{path}: not the weights of a network: it is no dictionary of tensors")
    return dict(loaded)


def _read_safetensors(path: Path) -> State:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ValueError(f"{path}: reading it needs the package safetensors: pip install 'litlab[timm]'") from error
    try:
        state: State = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
    return state

"""The network that is looked at: frozen, in evaluation mode, and fed with pixels in [0, 1].

Shapes: N images, C channels, H rows, W columns, K classes.
"""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from datamodules.base import ImageDataModule
from modules.base import Classifier
from pipelines.config.cli import load_data, option_values
from pipelines.evaluation.load_run import LoadedRun, load_from_checkpoint, load_run
from pipelines.explanation import pretrained
from pipelines.runtime.errors import UserError
from pipelines.runtime.silence import silence_lightning
from pipelines.runtime.text import format_command
from pipelines.tracking.store import StoredRun

KINDS: dict[str, type[nn.Module] | tuple[type[nn.Module], ...]] = {
    "conv": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "fc": nn.Linear,
}
PLACES = ("--out", "--tracking_uri", "--data.data_dir")
COMMON = """
  RUN_ID               as printed by litlab fit and shown in the UI; or one of
  --checkpoint FILE    a checkpoint of litlab; its config.yaml beside it, or
                       one folder above, or -c FILE
  --torchvision NAME   a classifier of torchvision, with weights that are on
                       this machine, or --weights FILE
  --out DIR            where picture and numbers are written (explain)
  --seed N             of everything that is drawn (0)
  --KEY VALUE          another value for a key of the run's configuration,
                       such as --data.data_dir FOLDER
  --tracking_uri URI   where runs are kept (mlflow.db of this project)"""


class FromPixels(nn.Module):
    """Pixels in [0, 1] to what the network sees, for a normalisation that begins with 0 to 255."""

    def __init__(self, normalize: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        seen: Tensor = self.normalize(pixels_NCHW * 255)
        return seen


@dataclass
class Target:
    """A network that is looked at; only inputs have gradients.

    Attributes:
        name: The experiment, or torchvision's name.
        id: Short, for the names of files.
        run: The run that it comes from, if any.
        network: Its layers have the names that `litlab inspect` prints.
        normalize: Pixels in [0, 1], shape (N, C, H, W), to what the network sees; differentiable.
        input_shape: Channels, rows, columns.
        classes: Names, in the order of the logits.
        data: Not read yet: see `test_set` and `train_images`. None for torchvision's.
        device: Where the network is, and pixels are to be.
    """

    name: str
    id: str
    run: StoredRun | None
    network: nn.Module
    normalize: nn.Module
    input_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    data: ImageDataModule | None
    device: torch.device

    def __post_init__(self) -> None:
        for part in (self.network, self.normalize):
            part.to(self.device).eval().requires_grad_(False)
        for module in self.network.modules():
            if hasattr(module, "inplace"):
                module.inplace = False  # type: ignore[assignment]  # it would change an output that is being looked at

    def logits(self, pixels_NCHW: Tensor) -> Tensor:
        """Logits of shape (N, K)."""
        logits_NK: Tensor = self.network(self.normalize(pixels_NCHW))
        return logits_NK

    def probabilities(self, pixels_NCHW: Tensor) -> Tensor:
        """Class probabilities of shape (N, K)."""
        return self.logits(pixels_NCHW).softmax(1)

    def whole(self) -> nn.Module:
        """Pixels in [0, 1] to logits, as one module."""
        return nn.Sequential(self.normalize, self.network).eval()

    def short_names(self) -> dict[str, str]:
        """conv1, conv2, ... and fc1, fc2, ... and the names that these layers have."""
        counts, names = dict.fromkeys(KINDS, 0), {}
        for name, module in self.network.named_modules():
            for kind, types in KINDS.items():
                if isinstance(module, types):
                    counts[kind] += 1
                    names[f"{kind}{counts[kind]}"] = name
        return names

    def layer(self, name: str) -> nn.Module:
        """A layer, by the name that `litlab inspect` prints, or by kind and order: conv1, conv2, fc1.

        Raises:
            UserError: There is no such layer.
        """
        short, modules = self.short_names(), dict(self.network.named_modules())
        named: nn.Module | None = modules.get(short.get(name, name)) if name else None
        if named is None:
            layers = {key: module for key, module in modules.items() if not isinstance(module, Metric)}
            every = [*short, *(key for key, module in layers.items() if key and not list(module.children()))]
            near = get_close_matches(name, every, n=3, cutoff=0.4)
            hint = f" (did you mean {' or '.join(near)}?)" if near else ""
            raise UserError(f"{self.name} has no layer {name!r}{hint}; it has {', '.join(every)}")
        return named

    def activations(self, name: str, pixels_NCHW: Tensor) -> Tensor:
        """The output of a layer; first axis N."""
        return self.output_of(self.layer(name), self.normalize(pixels_NCHW))

    def output_of(self, layer: nn.Module, inputs_NCHW: Tensor) -> Tensor:
        """The output of a layer for what the network sees, which has gradients with respect to it; first axis N.

        Raises:
            UserError: The layer is not used, or its output is no tensor.
        """
        seen: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                seen.append(output.clone())  # a function that comes next may work in place

        handle = layer.register_forward_hook(keep)
        try:
            self.network(inputs_NCHW)
        finally:
            handle.remove()
        if not seen:
            raise UserError(f"{type(layer).__name__} of {self.name} is not called, or gives no tensor")
        return seen[-1]

    def test_set(self) -> tuple[Tensor, Tensor]:
        """uint8 pixels of shape (N, C, H, W) and classes of shape (N,) of the test set, on the CPU.

        Raises:
            UserError: There are no data, or a file is missing.
        """
        data = self._data("test")
        return data.test_set.inputs, data.test_set.targets

    def train_images(self, count: int) -> Tensor:
        """The first training images, uint8 pixels of shape (N, C, H, W), on the CPU.

        Raises:
            UserError: There are no data, or a file is missing.
        """
        return self._data("fit").train_set.inputs[:count]

    def _data(self, stage: str) -> ImageDataModule:
        if self.data is None:
            raise UserError(f"{self.name} comes without data: give image files, --image FILE")
        load_data(self.data, stage)
        return self.data


def parse(word: str, argv: Sequence[str], parser: argparse.ArgumentParser) -> tuple[Target, argparse.Namespace]:
    """The network that a command names, and the options of the command.

    Args:
        word: What follows `litlab explain`.
        argv: What follows the word: RUN_ID first, if a run is looked at.
        parser: Has the word's own options; gets those that all words share. It has no positional arguments.

    Returns:
        The network; the options, with `out`, `seed`, `command`, which is what was typed, and `asked`, which is that
        without the run and the places of things.

    Raises:
        UserError: There is no such run, file or network, or it does not classify images.
    """
    run_id, rest = ("", list(argv)) if not argv or argv[0].startswith("-") else (argv[0], list(argv[1:]))
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("-c", "--config", type=Path)
    parser.add_argument("--torchvision")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=Path, default=Path("explain"))
    parser.add_argument("--seed", type=int, default=0)
    options, overrides = parser.parse_known_args(rest)
    options.command = format_command("explain", [word, *argv])
    options.asked = shlex.join([word, *_without_places(rest)])
    if sum(map(bool, (run_id, options.checkpoint, options.torchvision))) != 1:
        raise UserError(f"name one network: litlab explain {word} RUN_ID, or --checkpoint FILE, or --torchvision NAME")
    if options.weights and not options.torchvision:
        raise UserError("--weights goes with --torchvision; a checkpoint of litlab is given by --checkpoint FILE")
    if options.config and not options.checkpoint:
        raise UserError("-c goes with --checkpoint; a run has its configuration")
    silence_lightning()
    torch.manual_seed(options.seed)
    if options.torchvision:
        return _of_torchvision(options.torchvision, options.weights, overrides), options
    if options.checkpoint:
        return _of_checkpoint(options.checkpoint, options.config, overrides), options
    return _of_run(run_id, overrides), options


def _without_places(words: Sequence[str]) -> list[str]:
    """What was asked, wherever data, runs and pictures are."""
    kept, skip = [], False
    for word in words:
        option, joined, _ = word.partition("=")
        if not skip and option not in PLACES:
            kept.append(word)
        skip = option in PLACES and not joined
    return kept


def _of_run(run_id: str, overrides: Sequence[str]) -> Target:
    uris = option_values(overrides, "--tracking_uri")
    return _of_litlab(load_run(run_id, overrides, tracking_uri=uris[-1] if uris else None), run_id[:8])


def _of_checkpoint(path: Path, config: Path | None, overrides: Sequence[str]) -> Target:
    loaded = load_from_checkpoint(path, config, overrides)
    return _of_litlab(loaded, f"{loaded.cli.config.name}-{path.stem}")


def _of_litlab(loaded: LoadedRun, short: str) -> Target:
    """Return the network of a run or a checkpoint of litlab."""
    data, model, config = loaded.data, loaded.model, loaded.cli.config
    if not isinstance(data, ImageDataModule) or not isinstance(model, Classifier):
        raise UserError(f"{config.name} was not trained to classify images")
    if data.normalize is None:
        raise UserError(f"{loaded.checkpoint}: has no statistics of {type(data).__name__}")
    device, normalize = _device(config.trainer.accelerator), FromPixels(data.normalize)
    return Target(config.name, short, loaded.run, model, normalize, data.input_shape, data.classes, data, device)


def _of_torchvision(name: str, weights: Path | None, overrides: Sequence[str]) -> Target:
    if overrides:
        raise UserError(f"{overrides[0]}: no option for torchvision's networks, which have no configuration")
    network, normalize, shape, classes = pretrained.load(name, weights)
    return Target(name, name, None, network, normalize, shape, classes, None, _device("auto"))


def _device(accelerator: str) -> torch.device:
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")

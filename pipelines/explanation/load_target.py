"""Load the network to explain: of a run, of a checkpoint, or a published one.

Shapes: N images, C channels, H rows, W columns.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from datamodules.base import ImageDataModule
from modules.base import Classifier
from pipelines.config.example_batch import class_names, evaluation_batches, example_batch
from pipelines.evaluation.forward_method import logits_of
from pipelines.evaluation.load_run import LoadedRun, load_from_checkpoint, load_run
from pipelines.explanation.pretrained import load_classifier
from pipelines.explanation.settings import check_source
from pipelines.explanation.sources import BatchImages, LitlabImages
from pipelines.explanation.target import Target
from pipelines.runtime.errors import UserError
from pipelines.runtime.silence import silence_lightning

MAX_VALUES = 100_000_000  # of a data module's batches: 400 MB


class NormalizeUnitRange(nn.Module):
    """Apply a normalisation that expects pixels from 0 to 255 to pixels in [0, 1]."""

    def __init__(self, normalize: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        normalized_NCHW: Tensor = self.normalize(pixels_NCHW * 255)
        return normalized_NCHW


def load_target(
    run_id: str | None = None,
    *,
    checkpoint: Path | None = None,
    config: Path | None = None,
    backbone: str | None = None,
    weights: Path | None = None,
    overrides: Sequence[str] = (),
    tracking_uri: str | None = None,
    seed: int = 0,
    trust: bool = False,
    input_key: str | None = None,
    forward: str = "forward",
) -> Target:
    """Load the network to explain, frozen and in evaluation mode. Give exactly one of run, checkpoint and backbone.

    Args:
        run_id: A run of litlab, as `find_run` takes it; the checkpoint of its selected epoch is loaded.
        checkpoint: A checkpoint file of litlab.
        config: Its configuration; by default config.yaml in its folder or in the one above.
        backbone: Name of a classifier of torchvision or timm, or the class path of a function that returns one.
        weights: Its weights; by default those that have been downloaded.
        overrides: `--key value` tokens that change the configuration of a run or checkpoint.
        tracking_uri: The tracking store of the run; by default the project's.
        seed: Seed of torch's random numbers.
        trust: See `load_checkpoint`.
        input_key: Of a module that is not litlab's: the part of a batch that holds images; see `part_of_batch`.
        forward: Of such a module: name of the method that maps images to logits.

    Raises:
        UserError: There is no such run, file or network, or it does not classify images.
    """
    check_source(run_id, checkpoint=checkpoint, config=config, backbone=backbone, weights=weights)
    silence_lightning()
    torch.manual_seed(seed)
    if backbone:
        if tracking_uri or overrides:
            option = overrides[0] if overrides else "--tracking_uri"
            raise UserError(f"{option}: not an option for --backbone, which has no configuration")
        network, normalize, shape, classes = load_classifier(backbone, weights)
        short_id = backbone.replace("/", "-")
        return Target(backbone, short_id, None, network, normalize, shape, classes, None, _device("auto"))
    if checkpoint:
        loaded = load_from_checkpoint(checkpoint, config, overrides, trust=trust)
        short_id = f"{loaded.cli.config.name}-{checkpoint.stem}"
    else:
        assert run_id
        loaded = load_run(run_id, overrides, tracking_uri=tracking_uri, trust=trust)
        assert loaded.run
        short_id = loaded.run.run_id[:8]
    if isinstance(loaded.data, ImageDataModule) and isinstance(loaded.model, Classifier):
        return _from_litlab(loaded, loaded.data, loaded.model, short_id)
    return _from_batches(loaded, short_id, input_key, forward)


def _from_litlab(loaded: LoadedRun, data: ImageDataModule, model: Classifier, short_id: str) -> Target:
    """Return the network of a run or a checkpoint of litlab's own classes."""
    config = loaded.cli.config
    if data.normalize is None:
        raise UserError(f"{loaded.checkpoint}: has no statistics of {type(data).__name__}")
    device, normalize = _device(config.trainer.accelerator), NormalizeUnitRange(data.normalize)
    images = LitlabImages(data)
    return Target(config.name, short_id, loaded.run, model, normalize, data.input_shape, data.classes, images, device)


def _from_batches(loaded: LoadedRun, short_id: str, input_key: str | None, forward: str) -> Target:
    """Return the network of any image classifier, with the images of its test set, or else its validation set."""
    model, config = loaded.model, loaded.cli.config
    example = example_batch(loaded.cli, loaded.data, model)
    outputs = logits_of(model, forward, example.image_input(input_key))
    batches = evaluation_batches(loaded.cli, loaded.data, model, MAX_VALUES)
    images, classes = BatchImages(example, batches, input_key), class_names(loaded.data, example, outputs.shape[1])
    if forward != "forward":
        _call_as_forward(model, forward)
    device = _device(config.trainer.accelerator)
    return Target(
        config.name, short_id, loaded.run, model, images.to_input, images.input_shape, classes, images, device
    )


def _device(accelerator: str) -> torch.device:
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def _call_as_forward(model: LightningModule, name: str) -> None:
    """Make a call of the module call a method, so that layers keep the names that `litlab inspect` prints."""
    method, original = getattr(model, name), model.forward

    def call(*args: Any) -> Any:
        model.forward = original  # type: ignore[method-assign]  # the method may call the module itself
        try:
            return method(*args)
        finally:
            model.forward = call  # type: ignore[method-assign]

    model.forward = call  # type: ignore[method-assign]

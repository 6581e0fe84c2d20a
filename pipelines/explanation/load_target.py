"""Load the network to explain: of a run, of a checkpoint, or of torchvision.

Shapes: N images, C channels, H rows, W columns.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from datamodules.base import ImageDataModule
from modules.base import Classifier
from pipelines.evaluation.load_run import LoadedRun, load_from_checkpoint, load_run
from pipelines.explanation.pretrained import load_classifier
from pipelines.explanation.settings import check_source
from pipelines.explanation.target import Target
from pipelines.runtime.errors import UserError
from pipelines.runtime.silence import silence_lightning


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
    torchvision: str | None = None,
    weights: Path | None = None,
    overrides: Sequence[str] = (),
    tracking_uri: str | None = None,
    seed: int = 0,
    trust: bool = False,
) -> Target:
    """Load the network to explain, frozen and in evaluation mode. Give exactly one of run, checkpoint and torchvision.

    Args:
        run_id: A run of litlab; the checkpoint of its selected epoch is loaded.
        checkpoint: A checkpoint file of litlab.
        config: Its configuration; by default config.yaml in its folder or in the one above.
        torchvision: Name of a torchvision classifier.
        weights: Its weights; by default those that torch.hub has downloaded.
        overrides: `--key value` tokens that change the configuration of a run or checkpoint.
        tracking_uri: The tracking store of the run; by default the project's.
        seed: Seed of torch's random numbers.
        trust: See `load_checkpoint`.

    Raises:
        UserError: There is no such run, file or network, or it does not classify images.
    """
    check_source(run_id, checkpoint=checkpoint, config=config, torchvision=torchvision, weights=weights)
    silence_lightning()
    torch.manual_seed(seed)
    if torchvision:
        if tracking_uri or overrides:
            option = overrides[0] if overrides else "--tracking_uri"
            raise UserError(f"{option}: not an option for torchvision's networks, which have no configuration")
        network, normalize, shape, classes = load_classifier(torchvision, weights)
        return Target(torchvision, torchvision, None, network, normalize, shape, classes, None, _device("auto"))
    if checkpoint:
        loaded = load_from_checkpoint(checkpoint, config, overrides, trust=trust)
        return _from_litlab(loaded, f"{loaded.cli.config.name}-{checkpoint.stem}")
    assert run_id
    return _from_litlab(load_run(run_id, overrides, tracking_uri=tracking_uri, trust=trust), run_id[:8])


def _from_litlab(loaded: LoadedRun, short_id: str) -> Target:
    """Return the network of a run or a checkpoint of litlab."""
    data, model, config = loaded.data, loaded.model, loaded.cli.config
    if not isinstance(data, ImageDataModule) or not isinstance(model, Classifier):
        raise UserError(f"{config.name} is not an image classifier")
    if data.normalize is None:
        raise UserError(f"{loaded.checkpoint}: has no statistics of {type(data).__name__}")
    device, normalize = _device(config.trainer.accelerator), NormalizeUnitRange(data.normalize)
    return Target(config.name, short_id, loaded.run, model, normalize, data.input_shape, data.classes, data, device)


def _device(accelerator: str) -> torch.device:
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")

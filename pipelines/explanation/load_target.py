"""Load the network to explain: of a run, of a checkpoint, or of torchvision.

Shapes: N images, C channels, H rows, W columns.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from datamodules.base import ImageDataModule
from modules.base import Classifier
from pipelines.checkpoints.files import fetch_checkpoint, load_checkpoint
from pipelines.config.cli import LitlabCLI, parse_config
from pipelines.evaluation.load_run import parse_run
from pipelines.explanation.pretrained import load_classifier
from pipelines.explanation.settings import check_source
from pipelines.explanation.target import Target
from pipelines.runtime.errors import UserError
from pipelines.runtime.silence import silence_lightning
from pipelines.tracking.store import StoredRun


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

    Raises:
        UserError: There is no such run, file or network, or it does not classify images.
    """
    check_source(run_id, checkpoint=checkpoint, config=config, torchvision=torchvision, weights=weights)
    silence_lightning()
    torch.manual_seed(seed)
    overrides = [*overrides, *(["--tracking_uri", tracking_uri] if tracking_uri else [])]
    if torchvision:
        return _from_torchvision(torchvision, weights, overrides)
    if checkpoint:
        return _from_checkpoint(checkpoint, config, overrides)
    assert run_id
    return _from_run(run_id, overrides)


def _from_run(run_id: str, overrides: Sequence[str]) -> Target:
    cli, run = parse_run("explain", [run_id, *overrides])
    return _from_config(cli, fetch_checkpoint(run), run, run_id[:8])


def _from_checkpoint(path: Path, config: Path | None, overrides: Sequence[str]) -> Target:
    defaults = [folder / "config.yaml" for folder in (path.parent, path.parent.parent)]
    base = next((file for file in ([config] if config else defaults) if file.is_file()), None)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if base is None:
        raise UserError(f"{config or defaults[0]}: no such file; give the configuration of {path} with -c FILE")
    cli = parse_config("explain", overrides, base=base)
    return _from_config(cli, path, None, f"{cli.config.name}-{path.stem}")


def _from_config(cli: LitlabCLI, checkpoint: Path, run: StoredRun | None, short_id: str) -> Target:
    """Build the configured network, and load its weights and the statistics of its data from a checkpoint."""
    data, model = cli.build()
    if not isinstance(data, ImageDataModule) or not isinstance(model, Classifier):
        raise UserError(f"{cli.config.name} is not an image classifier")
    state = load_checkpoint(checkpoint)
    try:
        model.load_state_dict(state["state_dict"])
        data.load_state_dict(state[type(data).__qualname__])
    except (KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{checkpoint}: not a checkpoint of {cli.config.name} ({reason})") from error
    assert data.normalize is not None
    device = _device(cli.config.trainer.accelerator)
    normalize = NormalizeUnitRange(data.normalize)
    return Target(cli.config.name, short_id, run, model, normalize, data.input_shape, data.classes, data, device)


def _from_torchvision(name: str, weights: Path | None, overrides: Sequence[str]) -> Target:
    if overrides:
        raise UserError(f"{overrides[0]}: not an option for torchvision's networks, which have no configuration")
    network, normalize, shape, classes = load_classifier(name, weights)
    return Target(name, name, None, network, normalize, shape, classes, None, _device("auto"))


def _device(accelerator: str) -> torch.device:
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")

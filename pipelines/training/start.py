"""Where a new run starts from: a checkpoint that it continues, or weights that it begins with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import LightningModule
from torch import Tensor

from pipelines.checkpoints.files import BEST, LAST, fetch_checkpoint, load_checkpoint
from pipelines.config.arguments import option_values
from pipelines.config.cli import LitlabCLI
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import first_line
from pipelines.tracking.store import Store
from pipelines.tracking.tags import CONTINUES_TAG


@dataclass(frozen=True)
class Start:
    """Where a run starts from.

    Attributes:
        checkpoint: Checkpoint to continue from, or None.
        tags: Tags of the run that name the run it continues.
    """

    checkpoint: Path | None
    tags: dict[str, str]


def find_start(cli: LitlabCLI, model: LightningModule) -> Start:
    """Find the checkpoint of `--ckpt_path`, and load the weights of `--weights` into the model.

    Raises:
        UserError: There is no such file or run, or the weights are not those of this model.
    """
    config = cli.config
    if config.weights is not None:
        if config.ckpt_path is not None:
            raise UserError("--weights and --ckpt_path exclude each other: a checkpoint has weights")
        path, tags = _find(config.weights, BEST, config.tracking_uri)
        _load_weights(model, path, trust=cli.trust)
        return Start(None, tags)
    if config.ckpt_path is None:
        return Start(None, {})
    path, tags = _find(config.ckpt_path, LAST, config.tracking_uri)
    load_checkpoint(path, trust=cli.trust)  # a file that is not loaded is reported before the run is created
    return Start(path, tags)


def config_of_start(arguments: Sequence[str], tracking_uri: str | None) -> Path | None:
    """Return the configuration of the run that `--ckpt_path RUN_ID` names, if the arguments name no experiment."""
    given = option_values(arguments, "--ckpt_path")
    named = arguments[:1] and not arguments[0].startswith("-")
    if not given or named or option_values(arguments, "-c", "--config") or Path(given[-1]).is_file():
        return None
    return Store(tracking_uri).find(given[-1]).file("config.yaml")


def _find(file_or_run: str, name: str, tracking_uri: str | None) -> tuple[Path, dict[str, str]]:
    path = Path(file_or_run)
    if path.is_file():
        return path.absolute(), {}
    if path.suffix or len(path.parts) > 1:
        raise UserError(f"{file_or_run}: no such file")
    run = Store(tracking_uri).find(file_or_run)
    return fetch_checkpoint(run, name), {CONTINUES_TAG: run.run_id}


def _load_weights(model: LightningModule, path: Path, *, trust: bool) -> None:
    content = load_checkpoint(path, trust=trust, needed=("state_dict",))
    weights = content.get("state_dict", content)
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path} has no weights: neither a checkpoint nor a state_dict")
    try:
        model.load_state_dict(weights, strict=model.strict_loading)
    except RuntimeError as error:
        raise UserError(f"{path} has other weights than {type(model).__name__}: {first_line(error)}") from error

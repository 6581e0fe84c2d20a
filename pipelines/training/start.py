"""Where a new run starts from: a checkpoint that it continues, or weights that it begins with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from pipelines.checkpoints.files import BEST, LAST, STATE_KEY, fetch_checkpoint, load_checkpoint
from pipelines.config.arguments import option_values, starts_from_run
from pipelines.config.cli import LitlabCLI
from pipelines.config.request import names_file
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import whole_message
from pipelines.tracking.existing import existing_store
from pipelines.tracking.run_names import find_run
from pipelines.tracking.store import StoredRun
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
    content = load_checkpoint(path, trust=cli.trust)  # a file that is not loaded is reported before the run is created
    _check_remaining(config.ckpt_path, content, config.trainer)
    return Start(path, tags)


def config_of_start(arguments: Sequence[str], tracking_uri: str | None) -> Path | None:
    """Return the configuration of the run that `--ckpt_path RUN_ID` names, if the arguments name no experiment."""
    if not starts_from_run(arguments):
        return None
    uris = option_values(arguments, "--tracking_uri")
    run = option_values(arguments, "--ckpt_path")[-1]
    return find_run(existing_store(uris[-1] if uris else tracking_uri), run).file("config.yaml")


def find_origin(run: str | None, arguments: Sequence[str], tracking_uri: str | None) -> StoredRun | None:
    """Return the run of `--from`, whose configuration a new run has; None without one."""
    if run is None:
        return None
    uris = option_values(arguments, "--tracking_uri")
    return find_run(existing_store(uris[-1] if uris else tracking_uri), run)


def _find(file_or_run: str, name: str, tracking_uri: str | None) -> tuple[Path, dict[str, str]]:
    path = Path(file_or_run)
    if path.is_file():
        return path.absolute(), {}
    if names_file(file_or_run):
        raise UserError(f"{file_or_run}: no such file")
    run = find_run(existing_store(tracking_uri), file_or_run)
    return fetch_checkpoint(run, name), {CONTINUES_TAG: run.run_id}


def _check_remaining(name: str, content: Mapping[str, Any], trainer: Mapping[str, Any]) -> None:
    """Check that a checkpoint leaves something to train.

    Raises:
        UserError: It has reached `max_epochs` or `max_steps`.
    """
    is_own, within_epoch = STATE_KEY in content, "within_epoch" in content.get(STATE_KEY, {})
    epochs = content.get("epoch", 0) + (is_own and not within_epoch)  # Lightning's may be of the middle of an epoch
    for key, done in (("max_epochs", epochs), ("max_steps", content.get("global_step", 0))):
        if (limit := trainer[key]) is not None and 0 < limit <= done:
            raise UserError(f"{name} has been trained for {done} {key[4:]}: give a larger --trainer.{key} than {limit}")


def _load_weights(model: LightningModule, path: Path, *, trust: bool) -> None:
    content = load_checkpoint(path, trust=trust, needed=("state_dict",))
    weights = content.get("state_dict", content)
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{path} has no weights: neither a checkpoint nor a state_dict")
    try:
        model.load_state_dict(weights, strict=model.strict_loading)
    except RuntimeError as error:
        raise UserError(f"{path} has other weights than {type(model).__name__}: {whole_message(error)}") from error

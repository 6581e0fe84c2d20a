"""Load a trained model: a finished run, or a checkpoint file, with its configuration and data module."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden

from datamodules.in_memory import InMemoryDataModule
from pipelines.checkpoints.files import BEST, LAST, fetch_checkpoint, load_checkpoint
from pipelines.checkpoints.reselect import select_again
from pipelines.checkpoints.selection import Selection
from pipelines.config.arguments import option_values
from pipelines.config.cli import LitlabCLI, parse_config
from pipelines.config.data_setup import load_data
from pipelines.config.object_cli import configure
from pipelines.config.objects import Objects
from pipelines.runtime.errors import UserError
from pipelines.runtime.silence import silence_lightning
from pipelines.runtime.text import whole_message
from pipelines.tracking.existing import existing_store
from pipelines.tracking.run_log import epoch_history, read_entries
from pipelines.tracking.run_names import find_run
from pipelines.tracking.store import StoredRun
from pipelines.tracking.tags import DATA_HASH_TAG


@dataclass(frozen=True)
class LoadedRun:
    """A trained model, with what it was trained by.

    Attributes:
        run: The run in the tracking store; None for a checkpoint file.
        cli: The configuration that it was trained with, with the overrides.
        data: The data module. Its sets are read only if `stages` ask for them.
        model: In evaluation mode, on the CPU.
        checkpoint: Path on this machine, of the selected epoch.
    """

    run: StoredRun | None
    cli: LitlabCLI
    data: LightningDataModule | None
    model: LightningModule
    checkpoint: Path

    def has_recorded_data(self, split: str) -> bool:
        """Return whether a split that was read ("train", "val" or "test") is the one that the run recorded.

        Returns:
            True too where the run recorded no digest, or the data module has none.
        """
        examples = getattr(self.data, f"{split}_set", None)
        recorded = self.run.tags.get(f"{DATA_HASH_TAG}.{split}") if self.run else None
        return examples is None or not recorded or examples.digest() == recorded


def load_run(
    run: StoredRun | str,
    overrides: Sequence[str] = (),
    *,
    tracking_uri: str | None = None,
    stages: Sequence[str] = (),
    download: bool = True,
    weights: bool = True,
    trust: bool = False,
    objects: Objects | None = None,
) -> LoadedRun:
    """Load the model that a run selected. The run is only read.

    Args:
        run: A run that was read from the store, or what `find_run` takes.
        overrides: Other values for keys of its configuration, as on the command line: `["--data.data_dir", "data"]`.
        tracking_uri: Where a run id is looked up; by default the project's mlflow.db.
        stages: The data to read: "fit" for the training and validation set, "test" for the test set.
        download: Whether missing data are downloaded.
        weights: Whether to load the weights. A Trainer that is given the checkpoint loads them itself.
        trust: See `load_checkpoint`.
        objects: Module and data of a run that was trained with objects.

    Raises:
        UserError: There is no such run, it has no configuration or checkpoint, an override is wrong, or a file of the
            data is missing or damaged.
    """
    silence_lightning()
    found = find_run(existing_store(tracking_uri), run) if isinstance(run, str) else run
    cli = configure("test", overrides, found.file("config.yaml"), objects, training=False)
    cli.trust = trust
    loaded = LoadedRun(found, cli, *cli.build(), _find_checkpoint(found, cli, overrides))
    try:
        for stage in stages:
            if isinstance(loaded.data, InMemoryDataModule):  # others are set up by the trainer, for its own stage
                load_data(loaded.data, stage, download=download)
    except UserError as error:
        raise UserError(f"run {found.run_id}: {error}") from error
    if weights:
        restore(loaded)
    loaded.model.eval()
    return loaded


def _find_checkpoint(run: StoredRun, cli: LitlabCLI, overrides: Sequence[str]) -> Path:
    """Return the selected checkpoint: that of the run, or the best one that exists by another `--monitor`."""
    if not option_values(overrides, "--monitor"):
        return fetch_checkpoint(run)
    paths = []
    for name in (BEST, LAST):
        with contextlib.suppress(UserError):
            paths.append(fetch_checkpoint(run, name))
    monitor = Selection(cli.config.monitor, cli.config.mode).monitor
    assert monitor is not None
    return select_again(paths, epoch_history(read_entries(run.file("metrics.jsonl"))[0]), monitor)[1]


def load_from_checkpoint(
    path: Path, config: Path | None = None, overrides: Sequence[str] = (), *, trust: bool = False
) -> LoadedRun:
    """Load the model of a checkpoint file of litlab.

    Args:
        path: Such as best.ckpt.
        config: Its configuration; by default the config.yaml in its folder, or one folder above.
        overrides: See `load_run`.
        trust: See `load_checkpoint`.

    Raises:
        UserError: A file is missing, damaged or not a checkpoint of that configuration, or an override is wrong.
    """
    silence_lightning()
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    candidates = [config] if config else [folder / "config.yaml" for folder in (path.parent, path.parent.parent)]
    found = next((file for file in candidates if file.is_file()), None)
    if found is None:
        raise UserError(f"{candidates[0]}: no such file; -c FILE gives the configuration of {path}")
    cli = parse_config("test", overrides, base=found, training=False)
    cli.trust = trust
    loaded = LoadedRun(None, cli, *cli.build(), path)
    restore(loaded)
    loaded.model.eval()
    return loaded


def restore(loaded: LoadedRun) -> None:
    """Load the weights of the model and the statistics of the data module, such as the normalisation.

    Raises:
        UserError: The checkpoint is damaged, or is not one of this model.
    """
    name = type(loaded.data).__qualname__
    content = load_checkpoint(loaded.checkpoint, trust=loaded.cli.trust, needed=needed_keys(loaded.model, loaded.data))
    try:
        loaded.model.on_load_checkpoint(content)
        loaded.model.load_state_dict(content["state_dict"], strict=loaded.model.strict_loading)
        if loaded.data is not None and name in content:
            loaded.data.load_state_dict(content[name])
    except (KeyError, RuntimeError) as error:
        reason = f"not a checkpoint of {loaded.cli.config.name} ({whole_message(error)})"
        raise UserError(f"{loaded.checkpoint}: {reason}") from error


def needed_keys(model: LightningModule, data: LightningDataModule | None) -> tuple[str, ...] | None:
    """Return the keys of a checkpoint that an evaluation needs; None for all, which a module that reads it may need."""
    if is_overridden("on_load_checkpoint", model):
        return None
    return "state_dict", type(data).__qualname__

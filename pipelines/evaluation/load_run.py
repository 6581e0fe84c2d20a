"""Load a trained model: a finished run, or a checkpoint file, with its configuration and data module."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import LightningDataModule, LightningModule

from pipelines.checkpoints.files import fetch_checkpoint, load_checkpoint
from pipelines.config.cli import LitlabCLI, load_data, parse_config
from pipelines.runtime.errors import UserError
from pipelines.runtime.silence import silence_lightning
from pipelines.tracking.store import Store, StoredRun
from pipelines.tracking.tags import DATA_HASH_TAG


@dataclass(frozen=True)
class LoadedRun:
    """A trained model, with what it was trained by.

    Attributes:
        run: The run in the tracking store; None for a checkpoint file.
        cli: The configuration that it was trained with, with the overrides.
        data: The data module. Its sets are read only if `stages` or `read_data` ask for them.
        model: In evaluation mode, on the CPU.
        checkpoint: Path on this machine, of the selected epoch.
    """

    run: StoredRun | None
    cli: LitlabCLI
    data: LightningDataModule
    model: LightningModule
    checkpoint: Path

    @property
    def source(self) -> str:
        """The run, or the file, for messages."""
        return f"run {self.run.run_id}" if self.run else str(self.checkpoint)

    def read_data(self, *stages: str, download: bool = True) -> None:
        """Read the data of these stages: "fit" for the training and validation set, "test" for the test set.

        Args:
            stages: As for `LightningDataModule.setup`.
            download: Whether missing data are downloaded.

        Raises:
            UserError: A file is missing or damaged.
        """
        try:
            for stage in stages:
                if download:
                    load_data(self.data, stage)
                else:
                    self.data.setup(stage)
        except (ValueError, OSError) as error:
            raise UserError(f"{self.source}: {error}") from error

    def restore(self) -> None:
        """Load the weights of the model and the statistics of the data module, such as the normalisation.

        Raises:
            UserError: The checkpoint is damaged, or is not one of this model.
        """
        content = load_checkpoint(self.checkpoint)
        name = type(self.data).__qualname__
        try:
            self.model.load_state_dict(content["state_dict"])
            if name in content:
                self.data.load_state_dict(content[name])
        except (KeyError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{self.checkpoint}: not a checkpoint of {self.cli.config.name} ({reason})") from error

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
) -> LoadedRun:
    """Load the model that a run selected. The run is only read.

    Args:
        run: A run that was read from the store, or a run id.
        overrides: Other values for keys of its configuration, as on the command line: `["--data.data_dir", "data"]`.
        tracking_uri: Where a run id is looked up; by default the project's mlflow.db.
        stages: The data to read; see `LoadedRun.read_data`.
        download: Whether missing data are downloaded.
        weights: Whether to load the weights. A Trainer that is given the checkpoint loads them itself.

    Raises:
        UserError: There is no such run, it has no configuration or checkpoint, or an override is wrong.
    """
    silence_lightning()
    found = Store(tracking_uri).find(run) if isinstance(run, str) else run
    cli = parse_config("test", overrides, base=found.file("config.yaml"))
    return _load(found, cli, fetch_checkpoint(found), stages, download=download, weights=weights)


def load_from_checkpoint(path: Path, config: Path | None = None, overrides: Sequence[str] = ()) -> LoadedRun:
    """Load the model of a checkpoint file of litlab.

    Args:
        path: Such as best.ckpt.
        config: Its configuration; by default the config.yaml in its folder, or one folder above.
        overrides: See `load_run`.

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
    return _load(None, parse_config("test", overrides, base=found), path, (), download=False, weights=True)


def _load(
    run: StoredRun | None, cli: LitlabCLI, checkpoint: Path, stages: Sequence[str], *, download: bool, weights: bool
) -> LoadedRun:
    loaded = LoadedRun(run, cli, *cli.build(), checkpoint)
    loaded.read_data(*stages, download=download)
    if weights:
        loaded.restore()
    loaded.model.eval()
    return loaded

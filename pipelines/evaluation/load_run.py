"""Load the model of a finished run."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import LightningModule

from datamodules.base import InMemoryDataModule
from pipelines.checkpoints.files import fetch_checkpoint, load_checkpoint
from pipelines.config.cli import LitlabCLI, option_values, parse_config
from pipelines.runtime.errors import UserError
from pipelines.runtime.silence import silence_lightning
from pipelines.tracking.store import Store, StoredRun


@dataclass(frozen=True)
class LoadedRun:
    """A finished run's parts, as its own configuration makes them, with the data it was trained on."""

    cli: LitlabCLI
    data: InMemoryDataModule
    model: LightningModule
    checkpoint: Path


def load_run(found: StoredRun) -> LoadedRun:
    """A run as it was after its selected epoch."""
    silence_lightning()
    cli = parse_config("compare", ["--trainer.accelerator", "auto"], base=found.file("config.yaml"))
    checkpoint = fetch_checkpoint(found)
    data, model = cli.build()
    assert isinstance(data, InMemoryDataModule)
    try:
        for stage in ("fit", "test"):
            data.setup(stage)  # nothing is downloaded for a figure
        state = load_checkpoint(checkpoint)["state_dict"]
        model.load_state_dict(state)
    except (ValueError, KeyError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(f"run {found.run_id}: {error}") from error
    recorded = found.tags.get("data.sha256.test")
    if recorded and data.test_set.digest() != recorded:
        raise UserError(f"run {found.run_id}: this is not the test set that it was measured on")
    return LoadedRun(cli, data, model.eval(), checkpoint)


def parse_run(verb: str, argv: Sequence[str]) -> tuple[LitlabCLI, StoredRun]:
    """The configuration of a run, changed by the arguments that follow its id, and the run.

    Raises:
        UserError: There is no such run, it has no configuration, or an argument is wrong.
    """
    if not argv or argv[0].startswith("-"):
        raise UserError(f"name a run: litlab {verb} RUN_ID")
    run_id, *rest = argv
    uris = option_values(rest, "--tracking_uri")
    run = Store(uris[-1] if uris else None).find(run_id)
    return parse_config(verb, rest, base=run.file("config.yaml")), run

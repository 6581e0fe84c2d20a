"""Tags, params, name and configuration that a run records."""

import shlex
from collections.abc import Sequence
from itertools import pairwise

from lightning.pytorch import LightningDataModule

from datamodules.in_memory import InMemoryDataModule
from pipelines.config.cli import LitlabCLI
from pipelines.config.defaults import config_defaults
from pipelines.config.identity import config_hash, without_loggers
from pipelines.config.known_keys import known_keys
from pipelines.config.object_cli import ObjectCLI
from pipelines.tracking.run import Run
from pipelines.tracking.tags import (
    COMMAND_TAG,
    CONFIG_HASH_TAG,
    EXPERIMENT_TAG,
    NOTE_TAG,
    SEED_TAG,
    SOURCE_NAME_TAG,
    SOURCE_TYPE_TAG,
)
from pipelines.tracking.uri import tracking_uri_arguments

_NOT_IN_NAME = ("seed_everything", "tracking_uri", "data_dir", "name", "config", "enable_progress_bar")


def run_tags(cli: LitlabCLI, verb: str, argv: Sequence[str]) -> dict[str, str]:
    """Return the tags that record where a run comes from.

    Args:
        cli: The configuration.
        verb: The verb of the command that trains the run.
        argv: Its arguments.
    """
    resolved = cli.resolved()
    return {
        **cli.mlflow.tags,
        EXPERIMENT_TAG: resolved["name"],
        COMMAND_TAG: cli.command(verb, argv),
        SEED_TAG: str(resolved["seed_everything"]),
        SOURCE_NAME_TAG: f"litlab fit {resolved['name']}",  # the UI shows what follows its last slash
        SOURCE_TYPE_TAG: "LOCAL",
        NOTE_TAG: resolved["description"],
        **identity_tags(cli),
    }


def identity_tags(cli: LitlabCLI) -> dict[str, str]:
    """Return the tags that tell which runs have the same configuration."""
    resolved = cli.resolved()
    return {
        CONFIG_HASH_TAG: config_hash(resolved),
        **known_keys(without_loggers(resolved), config_defaults(cli)).tags(),
    }


def log_inputs(cli: LitlabCLI, data: LightningDataModule | None, run: Run) -> None:
    """Log what is known before the first step: configuration, params and a description of the data."""
    run.save_config(cli.config_to_save())
    if not run.params:  # a resumed run keeps its original params
        run.log_params(cli.params())
    if isinstance(data, InMemoryDataModule):
        run.log_dataset(data.describe())


def resume_command(cli: LitlabCLI, run: Run) -> str:
    """Return the command that continues a run, or the call of Python, if it is trained with objects."""
    if isinstance(cli, ObjectCLI):
        return cli.resume_call(run.run_id)
    return shlex.join(["litlab", "resume", run.run_id, *tracking_uri_arguments(run.store.uri)])


def run_name(argv: Sequence[str], seed: int) -> str:
    """Return a run's name, what it changes in the experiment and its seed: "dropout=0.3 seed=0 max_epochs=6".

    Keys of the trainer come last: the MLflow UI shows the first 22 characters.
    """
    pairs = [token.partition("=")[::2] for token in argv if token.startswith("--") and "=" in token]
    pairs += [(key, value) for key, value in pairwise(argv) if key.startswith("--") and "=" not in key]
    pairs = [(key, value) for key, value in pairs if not key.startswith("--trainer.logger") and key != "--keep"]
    words: dict[bool, list[str]] = {False: [], True: []}  # by whether the key is one of the trainer
    for key, value in pairs:
        name = key.rpartition(".")[2].lstrip("-")
        if name not in _NOT_IN_NAME:
            words[key.startswith("--trainer.")].append(f"{name}={value}")
    return " ".join([*words[False], f"seed={seed}", *words[True]])[:200]

"""Turn a command line into a data module, a module and a trainer: LightningCLI with litlab's experiments and errors."""

import copy
import inspect
from argparse import ArgumentError
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from modules.base import Learner
from modules.norms import SyncBatchNorm
from pipelines.checkpoints.files import AtomicCheckpointIO
from pipelines.config.distributed import cluster_environments
from pipelines.config.error_messages import explain_parser_error
from pipelines.config.experiments import find_experiment, read_yaml
from pipelines.config.identity import flatten_config, without_loggers
from pipelines.config.loggers import take_mlflow_settings
from pipelines.runtime.errors import UserError


class LitlabCLI(LightningCLI):
    """LightningCLI for any module and data module that only parses. `build` and `make_trainer` create the parts.

    Args:
        args: Command-line arguments.
        default_name: Name of the MLflow experiment if none is given.

    Attributes:
        config: The parsed configuration.
        config_init: The same with instances instead of class paths, after `build`.
        mlflow: What an MLFlowLogger of the configuration says about the run.

    Raises:
        UserError: A key is unknown or a value has the wrong type; the message names it and suggests the nearest key.
    """

    def __init__(self, args: Sequence[str], *, default_name: str) -> None:
        self._default_name = default_name
        try:
            super().__init__(
                LightningModule,
                LightningDataModule,
                save_config_callback=None,
                seed_everything_default=0,
                parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
                subclass_mode_model=True,
                subclass_mode_data=True,
                trainer_defaults={"enable_model_summary": False, "num_sanity_val_steps": 0},
                args=list(args),
                run=False,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,  # modules save their own, plain hyperparameters
            )
        except ArgumentError as error:
            raise UserError(explain_parser_error(str(error), self.parser, args)) from error
        except ValueError as error:  # a seed out of range
            raise UserError(str(error)) from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", type=str, default=self._default_name, help="The MLflow experiment of the run.")
        parser.add_argument("--description", type=str, default="", help="One-line description of the experiment.")
        parser.add_argument(
            "--tracking_uri",
            type=str | None,
            default=None,
            help="Where runs are stored; default: mlflow.db of this project.",
        )
        parser.link_arguments("data.num_classes", "model.init_args.num_classes", apply_on="instantiate")
        parser.link_arguments("data.input_shape", "model.init_args.input_shape", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        assert isinstance(args, list)
        self.config = parser.parse_args(args)
        self.mlflow = take_mlflow_settings(self.config, self._default_name)

    def instantiate_classes(self) -> None:
        """Do nothing: `build` instantiates the classes."""

    def build(self) -> tuple[LightningDataModule, LightningModule]:
        """Create the data module and the module.

        Raises:
            UserError: A value is out of range, or a file that the data needs is missing.
        """
        config = self.config.clone()
        config.trainer.logger = None  # see `loggers.place_logger`
        try:
            self.config_init = self.parser.instantiate_classes(config)
            if isinstance(self.config_init.model, Learner):
                self._check_no_data_keys()
                self.config_init.model.configure_optimizers()  # fail before the run is created, not after
        except (ValueError, FileNotFoundError, MisconfigurationException) as error:
            raise UserError(str(_root_cause(error))) from error
        return self.config_init.data, self.config_init.model

    def _check_no_data_keys(self) -> None:
        """Refuse model keys that are taken from the data."""
        for key in ("num_classes", "input_shape"):
            if self.config.get(f"model.init_args.{key}") is not None:
                raise ValueError(f"model.{key} is known from the data and must not be set")

    def make_trainer(self, **kwargs: Any) -> Trainer:
        """Create the trainer of the configuration; `kwargs` override its arguments."""
        settings = {**self.config_init.trainer.as_dict(), **kwargs}
        synced = [SyncBatchNorm()] if settings.get("sync_batchnorm") else []
        settings["plugins"] = [
            *_as_list(settings.get("plugins")),
            AtomicCheckpointIO(),
            *cluster_environments(),
            *synced,
        ]
        try:
            return Trainer(**settings)
        except (ValueError, MisconfigurationException) as error:
            raise UserError(f"trainer: {error}") from error

    @property
    def callbacks(self) -> list[Callback]:
        """Callbacks of the configuration."""
        return _as_list(self.config_init.trainer.callbacks)

    def params(self) -> dict[str, Any]:
        """Return the params of a run: flat keys with values, without None and the defaults of Trainer."""
        defaults = {f"trainer.{key}": item.default for key, item in inspect.signature(Trainer).parameters.items()}
        flat = flatten_config(without_loggers(self.resolved()))
        params = {key: value for key, value in flat.items() if value is not None and value != defaults.get(key)}
        return {key: value for key, value in params.items() if key not in ("name", "description", "data.data_dir")}

    def resolved(self) -> dict[str, Any]:
        """Return every key with its value as plain YAML types, from which `litlab fit -c` reproduces the run.

        Each call returns a copy.
        """
        return copy.deepcopy(self._resolved)

    @cached_property
    def _resolved(self) -> dict[str, Any]:
        config: Namespace = self.config.clone()
        for key in ("config", "tracking_uri"):
            config.pop(key, None)
        resolved: dict[str, Any] = yaml.safe_load(self.parser.dump(config, skip_none=False))
        for key, value in resolved["trainer"].items():
            if key.startswith("limit_") and isinstance(value, float) and value > 1:
                resolved["trainer"][key] = int(value)  # 1000 or 1000.0 depends on what was imported before
        return resolved


def _root_cause(error: BaseException) -> BaseException:
    """Return the error that a class raised, which jsonargparse wraps in others."""
    while True:
        inner = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if not isinstance(inner, ValueError | OSError):
            return error
        error = inner


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def parse_config(verb: str, argv: Sequence[str], base: Path | None = None) -> LitlabCLI:
    """Parse `[NAME | PATH] [-c FILE ...] [--key value ...]`.

    Args:
        verb: Named in messages.
        argv: The arguments.
        base: Configuration file that the arguments change, such as that of a run. An experiment cannot be named then.

    Raises:
        UserError: An argument or a file is invalid.
    """
    args = list(argv)
    if base is None and args and not args[0].startswith("-"):
        base = find_experiment(args.pop(0))
    files = [base] if base else []
    if stray := [token for token in args[:1] if not token.startswith("-")]:
        raise UserError(f"unexpected argument {stray[0]!r}: one experiment at a time")
    given = [Path(value) for value in option_values(args, "-c", "--config")]
    help_requested = any(token.endswith(".help") for token in args)  # jsonargparse's, such as --model.help CLASS
    if not (files or given or help_requested):
        raise UserError(f"name an experiment first (litlab list shows them), or a file: litlab {verb} -c FILE")
    for path in given:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    for path in [*files, *given]:
        read_yaml(path, "data, model, trainer")
    config_args = [token for path in files for token in ("--config", str(path))]
    return LitlabCLI([*config_args, *args], default_name=[*files, *given, Path("NAME")][0].stem)


def print_full_help() -> NoReturn:
    """Print every argument that LightningCLI takes, and exit."""
    LitlabCLI(["--help"], default_name="NAME")
    raise AssertionError("argparse exits after its help")


def option_values(args: Sequence[str], *flags: str) -> list[str]:
    """Return the values of a flag, given as `--flag value` or `--flag=value`."""
    following = [value for flag, value in pairwise(args) if flag in flags]
    joined = [token.partition("=")[2] for token in args if token.partition("=")[0] in flags and "=" in token]
    return following + joined


def load_data(data: LightningDataModule, stage: str, *, download: bool = True) -> None:
    """Load the data of a stage ("fit" or "test"), before a run is created, and download them if they are missing.

    Raises:
        UserError: A file is missing or damaged; the message names it.
    """
    try:
        if download:
            data.prepare_data()
        data.setup(stage)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error

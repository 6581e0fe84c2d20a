"""From a command line to a datamodule, a module and a trainer: LightningCLI, with litlab's experiments and errors."""

import contextlib
import inspect
from argparse import ArgumentError
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.profilers import PassThroughProfiler

from modules.base import Learner
from modules.norms import SyncBatchNorm
from pipelines.checkpoints.files import AtomicCheckpointIO
from pipelines.config.distributed import cluster_environments
from pipelines.config.error_messages import explain_parser_error
from pipelines.config.experiments import find_experiment, read_yaml
from pipelines.config.identity import flatten_config
from pipelines.runtime.errors import UserError


class _Unprofiled(PassThroughProfiler):
    """Lightning's own way not to profile makes a generator for each of seventy hooks a step."""

    _nothing = contextlib.nullcontext()

    def profile(self, action_name: str) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return self._nothing


class LitlabCLI(LightningCLI):
    """LightningCLI for any module and datamodule, that only parses; `build` and `trainer` make the parts when asked.

    Raises:
        UserError: A key is unknown or a value has the wrong type; the message names it and what is near.
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
                load_from_checkpoint_support=False,  # modules keep their own, plain hyper-parameters
            )
        except ArgumentError as error:
            raise UserError(explain_parser_error(str(error), self.parser, args)) from error
        except ValueError as error:  # a seed out of range
            raise UserError(str(error)) from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--name", type=str, default=self._default_name, help="The MLflow experiment that runs go to."
        )
        parser.add_argument("--description", type=str, default="", help="The experiment in one line.")
        parser.add_argument(
            "--tracking_uri",
            type=str | None,
            default=None,
            help="Where runs are kept; default: mlflow.db of this project.",
        )
        parser.link_arguments("data.num_classes", "model.init_args.num_classes", apply_on="instantiate")
        parser.link_arguments("data.input_shape", "model.init_args.input_shape", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        assert isinstance(args, list)
        self.config = parser.parse_args(args)

    def instantiate_classes(self) -> None:
        """Nothing yet: `build` does it, when the caller is ready."""

    def build(self) -> tuple[LightningDataModule, LightningModule]:
        """The datamodule and the module, made from the configuration.

        Raises:
            UserError: A value is out of range, or a file that the data needs is missing.
        """
        if self.config.trainer.logger is not None:
            raise UserError("trainer.logger: litlab logs to MLflow by itself (--tracking_uri says where)")
        try:
            self.config_init = self.parser.instantiate_classes(self.config)
            if isinstance(self.config_init.model, Learner):
                self._refuse_what_data_say()
                self.config_init.model.configure_optimizers()  # it says now what it would say after the start
        except (ValueError, FileNotFoundError, MisconfigurationException) as error:
            raise UserError(str(_root(error))) from error
        return self.config_init.data, self.config_init.model

    def _refuse_what_data_say(self) -> None:
        for key in ("num_classes", "input_shape"):
            if self.config.get(f"model.init_args.{key}") is not None:
                raise ValueError(f"model.{key} is known from the data, and not to be given")

    def make_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer of the configuration, with these arguments instead of its own."""
        settings = {**self.config_init.trainer.as_dict(), **kwargs}
        settings["profiler"] = settings.get("profiler") or _Unprofiled()
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
        """The callbacks of the configuration."""
        return _as_list(self.config_init.trainer.callbacks)

    def params(self) -> dict[str, Any]:
        """Flat keys and values for people to compare runs by: without what is not set, or is Trainer's own default."""
        usual = {f"trainer.{key}": item.default for key, item in inspect.signature(Trainer).parameters.items()}
        flat = flatten_config(self.resolved())
        shown = {key: value for key, value in flat.items() if value is not None and value != usual.get(key)}
        return {key: value for key, value in shown.items() if key not in ("name", "description", "data.data_dir")}

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as plain YAML types; what `litlab fit -c` reproduces the run from."""
        config: Namespace = self.config.clone()
        for key in ("config", "tracking_uri"):
            config.pop(key, None)
        resolved: dict[str, Any] = yaml.safe_load(self.parser.dump(config, skip_none=False))
        for key, value in resolved["trainer"].items():
            if key.startswith("limit_") and isinstance(value, float) and value > 1:
                resolved["trainer"][key] = int(value)  # 1000 or 1000.0: it depends on what has been imported before
        return resolved


def _root(error: BaseException) -> BaseException:
    """The error that a class raised, inside those that jsonargparse wraps around it."""
    while True:
        inner = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if not isinstance(inner, ValueError | OSError):
            return error
        error = inner


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def parse_config(verb: str, argv: Sequence[str], base: Path | None = None) -> LitlabCLI:
    """Parse `[NAME | PATH] [-c FILE ...] [--key value ...]`, on top of a base file if one is given."""
    args = list(argv)
    if base is None and args and not args[0].startswith("-"):
        base = find_experiment(args.pop(0))
    files = [base] if base else []
    if stray := [token for token in args[:1] if not token.startswith("-")]:
        raise UserError(f"one experiment at a time: {stray[0]!r} is one too many")
    given = [Path(value) for value in option_values(args, "-c", "--config")]
    asks_for_help = any(token.endswith(".help") for token in args)  # of jsonargparse, such as --model.help CLASS
    if not (files or given or asks_for_help):
        raise UserError(f"name an experiment (litlab list shows them) first, or a file: litlab {verb} -c FILE")
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
    """The values given for a flag, as `--flag value` or `--flag=value`."""
    following = [value for flag, value in pairwise(args) if flag in flags]
    joined = [token.partition("=")[2] for token in args if token.partition("=")[0] in flags and "=" in token]
    return following + joined


def load_data(data: LightningDataModule, stage: str) -> None:
    """Read the data of a stage before anything depends on it.

    Raises:
        UserError: A file is missing or damaged; the message names it.
    """
    try:
        data.prepare_data()
        data.setup(stage)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error

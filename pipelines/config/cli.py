"""Turn a command line into a data module, a module and a trainer: LightningCLI with litlab's experiments and errors."""

import copy
import inspect
import json
from argparse import ArgumentError
from collections.abc import Collection, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.model_helpers import is_overridden

from modules.base import Learner
from modules.norms import SyncBatchNorm
from pipelines.checkpoints.files import AtomicCheckpointIO
from pipelines.config.callbacks import without_training_parts
from pipelines.config.data_setup import draw_alike, set_up_once
from pipelines.config.distributed import cluster_environments
from pipelines.config.dump import dump_config
from pipelines.config.error_messages import explain_parser_error, refusals
from pipelines.config.experiments import find_experiment, read_yaml
from pipelines.config.identity import LATER_KEYS, flatten_config, without_loggers
from pipelines.config.links import LinkParser, ModelLinks, is_learner, remove_derived
from pipelines.config.loggers import take_mlflow_settings
from pipelines.runtime.errors import UserError
from pipelines.runtime.lightning_names import unify_lightning_names
from pipelines.runtime.user_traceback import user_traceback

SANITY_STEPS = 2  # validation batches before the training of anybody else's module: Lightning's default


class LitlabCLI(LightningCLI):
    """LightningCLI for any module and data module that only parses. `build` and `make_trainer` create the parts.

    Args:
        args: Command-line arguments.
        default_name: Name of the MLflow experiment if none is given.
        training: Whether the parts are to train.

    Attributes:
        config: The parsed configuration. `data` is None if the module has its own data loaders.
        trust: Whether its trainers may load checkpoints in full, whoever wrote them; see `load_checkpoint`.
        mlflow: What an MLFlowLogger of the configuration says about the run.

    Raises:
        UserError: A key is unknown or a value has the wrong type; the message names it and suggests the nearest key.
    """

    def __init__(self, args: Sequence[str], *, default_name: str, training: bool = True) -> None:
        self._default_name, self._training = default_name, training
        unify_lightning_names()
        self.trust = False
        try:
            super().__init__(
                LightningModule,
                datamodule_class=None,  # any, or none: a module may have its own data loaders
                save_config_callback=None,
                parser_class=LinkParser,
                seed_everything_default=0,
                parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
                subclass_mode_model=True,
                trainer_defaults={"enable_model_summary": False, "num_sanity_val_steps": 0},
                args=list(args),
                run=False,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,  # modules save their own, plain hyperparameters
            )
        except ArgumentError as error:
            if found := user_traceback(error):  # in the file of a class
                raise found.error from None
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
        _add_selection_arguments(parser)
        self._links = ModelLinks(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        assert isinstance(args, list)
        self._given = _given(parser, args)
        if not is_learner(self._given):
            parser.set_defaults({"trainer.num_sanity_val_steps": SANITY_STEPS})
        self.config = parser.parse_args(args)
        self.mlflow = take_mlflow_settings(self.config, self._default_name)

    def instantiate_classes(self) -> None:
        """Do nothing: `build` instantiates the classes."""

    def build(self) -> tuple[LightningDataModule | None, LightningModule]:
        """Create the data module, None without one, and the module.

        Raises:
            UserError: A value is out of range, or a file that the data needs is missing.
        """
        if self.config.trainer.barebones:
            raise UserError("trainer.barebones switches off logging and checkpoints, which a run of litlab consists of")
        data = self._instantiate(data=self.config.data).data
        with refusals():
            self._links.take(self.config, self._given, data)
        self.__dict__.pop("_resolved", None)
        model = self._instantiate(data=data, model=self.config.model).model
        if self._training and data is None and not is_overridden("train_dataloader", model):
            raise UserError(f"data is required: {type(model).__name__} has no train_dataloader of its own")
        if isinstance(model, Learner):
            with refusals():
                model.configure_optimizers()  # fail before the run is created, not after
        self._make_repeatable(data, model)
        return data, model

    def _make_repeatable(self, data: LightningDataModule | None, model: LightningModule) -> None:
        """Let every command on the run draw the same split; see `data_setup`."""
        seed = self.config.seed_everything
        number = torch.initial_seed() % 2**32 if seed is False else int(seed)
        if data is None:
            draw_alike(model, number)
        else:
            set_up_once(data, number)

    def _instantiate(self, **sections: Any) -> Namespace:
        """Create the instances of some sections of the configuration."""
        with refusals():
            instances: Namespace = self.parser.instantiate(_namespace(**{"data": None, **sections}))
            return instances

    def make_trainer(self, checkpoint_keys: Collection[str] | None = None, **kwargs: Any) -> Trainer:
        """Create the trainer of the configuration.

        Args:
            checkpoint_keys: The keys of a checkpoint that it needs; None for all. See `load_checkpoint`.
            kwargs: Override arguments of the trainer.
        """
        own = {key: value for key, value in vars(self.config.trainer).items() if key not in kwargs}
        settings = {**vars(self._instantiate(trainer=_namespace(**own)).trainer), **kwargs}
        synced = [SyncBatchNorm()] if settings.get("sync_batchnorm") else []
        settings["plugins"] = [
            *_as_list(settings.get("plugins")),
            AtomicCheckpointIO(trust=self.trust, needed=checkpoint_keys),
            *cluster_environments(),
            *synced,
        ]
        try:
            return Trainer(**settings)
        except (ValueError, MisconfigurationException) as error:
            raise UserError(f"trainer: {error}") from error

    @cached_property
    def callbacks(self) -> list[Callback]:
        """Callbacks of the configuration."""
        callbacks = self.config.trainer.callbacks
        return _as_list(self._instantiate(trainer=_namespace(callbacks=callbacks)).trainer.callbacks)

    def params(self) -> dict[str, Any]:
        """Return the params of a run: flat keys with values, without None and the defaults of Trainer and litlab."""
        defaults = {f"trainer.{key}": item.default for key, item in inspect.signature(Trainer).parameters.items()}
        defaults |= LATER_KEYS
        flat = flatten_config(without_loggers(self.resolved()))
        params = {key: value for key, value in flat.items() if value is not None and value != defaults.get(key)}
        left_out = ("name", "description", "data.data_dir", "checkpoint_every", "leak_check")
        return {key: value for key, value in params.items() if key not in left_out}

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
        resolved: dict[str, Any] = dump_config(self.parser, config, skip_link_targets=False)
        remove_derived(resolved, self.config, self._given)
        for key, value in resolved["trainer"].items():
            if key.startswith("limit_") and isinstance(value, float) and value > 1:
                resolved["trainer"][key] = int(value)  # 1000 or 1000.0 depends on what was imported before
        return resolved


def _add_selection_arguments(parser: LightningArgumentParser) -> None:
    """Add what selects, saves and loads weights."""
    add = parser.add_argument
    add("--monitor", type=str | None, default=None, help="Metric that selects the best weights, as it is logged.")
    add("--mode", type=Literal["min", "max"] | None, default=None, help="Whether lower or higher values are better.")
    add(
        "--checkpoint_every",
        type=int | str | None,
        default=None,
        help="Save a checkpoint within epochs too: 500 (steps), 10m, 2h.",
    )
    add(
        "--test_weights",
        type=Literal["best", "last", "callback"],
        default="best",
        help="Weights that are tested: the best by --monitor, the last, or the best of your first ModelCheckpoint.",
    )
    add("--leak_check", type=bool, default=True, help="Refuse training examples in the validation and test set.")
    add("--ckpt_path", type=str | None, default=None, help="Checkpoint file or run id to continue from, as a new run.")
    add("--weights", type=str | None, default=None, help="Checkpoint file or run id to take the initial weights from.")


def _given(parser: LightningArgumentParser, args: Sequence[str]) -> Namespace:
    """Return what files and arguments give, without defaults; nothing if they are invalid, which is reported later."""
    printing = "--print_config"  # prints the configuration as soon as it is parsed
    try:
        given: Namespace = parser.parse_args([arg for arg in args if not arg.startswith(printing)], defaults=False)
    except ArgumentError:
        return _namespace()
    return given


def _namespace(**values: Any) -> Namespace:
    return Namespace(**values)  # type: ignore[no-untyped-call]


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def parse_config(verb: str, argv: Sequence[str], base: Path | None = None, *, training: bool = True) -> LitlabCLI:
    """Parse `[NAME | PATH] [-c FILE ...] [--key value ...]`.

    Args:
        verb: Named in messages.
        argv: The arguments.
        base: Configuration file that the arguments change, such as that of a run. An experiment cannot be named then.
        training: Whether the configuration is to train; without it, callbacks that only a training needs, which may not
            exist any more, are left out.

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
    contents = [read_yaml(path, "data, model, trainer") for path in [*files, *given]]
    config_args = [token for path in files for token in ("--config", str(path))]
    if not training and files and (kept := without_training_parts(contents[0])) != contents[0]:
        config_args = ["--config", json.dumps(kept)]
    name = [*files, *given, Path("NAME")][0].stem
    return LitlabCLI([*config_args, *args], default_name=name, training=training)


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
    with refusals(wrapped=False):
        if download:
            data.prepare_data()
        data.setup(stage)

"""Turn a command line into a data module, a module and a trainer: LightningCLI with litlab's experiments and errors."""

import copy
import inspect
import json
from argparse import ArgumentError
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.model_helpers import is_overridden

from datamodules.in_memory import InMemoryDataModule
from modules.base import Learner
from modules.norms import SyncBatchNorm
from pipelines.checkpoints.files import AtomicCheckpointIO
from pipelines.config.arguments import add_arguments
from pipelines.config.callbacks import SEARCHING, without_training_parts
from pipelines.config.data_setup import draw_alike, set_up_once
from pipelines.config.distributed import cluster_environments, draw_seed, is_rank_zero
from pipelines.config.dump import dump_config
from pipelines.config.error_messages import explain_parser_error, refusals
from pipelines.config.given_keys import check_keys
from pipelines.config.identity import LATER_KEYS, PLACE_KEYS, flatten_config, without_loggers
from pipelines.config.links import LinkParser, ModelLinks, is_learner, remove_derived
from pipelines.config.loggers import build_loggers, take_mlflow_settings
from pipelines.config.nulls import check_nulls
from pipelines.config.objects import KEY as OBJECTS
from pipelines.config.objects import as_classes
from pipelines.config.optimizers import set_optimizers
from pipelines.config.request import read_request
from pipelines.runtime.errors import UserError
from pipelines.runtime.lightning_names import unify_lightning_names
from pipelines.runtime.project_packages import warn_of_hidden_modules
from pipelines.runtime.text import format_command
from pipelines.runtime.user_traceback import user_traceback

SANITY_STEPS = 2  # validation batches before the training of anybody else's module: Lightning's default


class LitlabCLI(LightningCLI):
    """LightningCLI for any module and data module that only parses. `build` and `make_trainer` create the parts.

    Args:
        args: Command-line arguments.
        default_name: Name of the MLflow experiment if none is given.
        training: Whether the parts are to train.
        draws_seed: Whether `seed_everything: false` draws a seed, which the run records.

    Attributes:
        searches: Whether the callbacks that search for a value, such as BatchSizeFinder, are to search.
        config: The parsed configuration. `data` is None if the module has its own data loaders.
        trust: Whether its trainers may load checkpoints in full, whoever wrote them; see `load_checkpoint`.
        mlflow: What an MLFlowLogger of the configuration says about the run.

    Raises:
        UserError: A key is unknown or a value has the wrong type; the message names it and suggests the nearest key.
    """

    def __init__(
        self, args: Sequence[str], *, default_name: str, training: bool = True, draws_seed: bool = True
    ) -> None:
        self._default_name, self._training, self._draws_seed = default_name, training, draws_seed
        self._derived: dict[str, Any] = {}
        unify_lightning_names()
        self.trust, self.searches = False, True
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
                load_from_checkpoint_support=False,  # modules save their own, plain hyperparameters
            )
        except ArgumentError as error:
            if found := user_traceback(error):  # in the file of a class
                raise found.error from None
            raise UserError(explain_parser_error(str(error), self.parser, args)) from error
        except ValueError as error:  # a seed out of range
            raise UserError(str(error)) from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add_arguments(parser, self._default_name)
        self._links = ModelLinks(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        assert isinstance(args, list)
        self._given = _given(parser, args)
        if not is_learner(self._given):
            parser.set_defaults({"trainer.num_sanity_val_steps": SANITY_STEPS})
        self.config = parser.parse_args(args)
        if self._draws_seed and self.config.seed_everything is False:
            self.config.seed_everything = draw_seed()
        self.mlflow = take_mlflow_settings(self.config, self._default_name)

    def instantiate_classes(self) -> None:
        """Do nothing: `build` instantiates the classes."""

    def build(self) -> tuple[LightningDataModule | None, LightningModule]:
        """Create the data module, None without one, and the module.

        Raises:
            UserError: A value is out of range, or a file that the data needs is missing.
        """
        if self.config.weights_only is False:
            raise UserError("weights_only: false is not needed; --trust restores objects of others' checkpoints")
        if self.config.trainer.barebones:
            raise UserError("trainer.barebones switches off logging and checkpoints, which a run of litlab consists of")
        data = self._instantiate(data=self.config.data).data
        self._derived = data.derived_arguments() if isinstance(data, InMemoryDataModule) else {}
        with refusals():
            self._links.take(self.config, self._given, data)
        self.__dict__.pop("_resolved", None)
        model = self._instantiate(data=data, model=self.config.model).model
        if self._training and data is None and not is_overridden("train_dataloader", model):
            raise UserError(f"data is required: {type(model).__name__} has no train_dataloader of its own")
        set_optimizers(model, self.config)
        if isinstance(model, Learner) or self.config.optimizer is not None:
            with refusals():
                model.configure_optimizers()  # fail before the run is created, not after
        self._make_repeatable(data, model)
        warn_of_hidden_modules(type(data), type(model))
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
        """Callbacks of the configuration, without those that search if there is no search."""
        callbacks = self.config.trainer.callbacks
        built = _as_list(self._instantiate(trainer=_namespace(callbacks=callbacks)).trainer.callbacks)
        return [callback for callback in built if self.searches or not isinstance(callback, SEARCHING)]

    def profiler(self) -> Any:
        """Return the profiler of the configuration: an object, a name, or None."""
        return self._instantiate(trainer=_namespace(profiler=self.config.trainer.profiler)).trainer.profiler

    def loggers(self) -> list[Logger | None]:
        return build_loggers(self.config)

    def command(self, verb: str, argv: Sequence[str]) -> str:
        """Return the command with these arguments, which a run records."""
        return format_command(verb, argv)

    def params(self) -> dict[str, Any]:
        """Return the params of a run: flat keys with values, without None and the defaults of Trainer and litlab."""
        defaults = {f"trainer.{key}": item.default for key, item in inspect.signature(Trainer).parameters.items()}
        defaults |= LATER_KEYS
        flat = flatten_config(without_loggers(self.resolved()))
        params = {key: value for key, value in flat.items() if value is not None and value != defaults.get(key)}
        left_out = ("name", "description", *(key for key in PLACE_KEYS if not key.startswith("trainer.")))
        return {key: value for key, value in params.items() if key not in left_out}

    def resolved(self) -> dict[str, Any]:
        """Return every key with its value as plain YAML types: what params and hash of a run are made from.

        After `build`, an argument of the data module that has the value which the data determine is None, as if it had
        not been given. Each call returns a copy.
        """
        resolved = copy.deepcopy(self._resolved)
        arguments = _data_arguments(resolved)
        arguments |= {key: None for key, value in self._derived.items() if arguments.get(key) == value}
        return resolved

    def config_to_save(self) -> dict[str, Any]:
        """Return `resolved`, with what the data determine, from which `litlab fit -c` reproduces the run."""
        resolved = self.resolved()
        arguments = _data_arguments(resolved)
        arguments |= {key: value for key, value in self._derived.items() if arguments.get(key, value) is None}
        return resolved

    def set_value(self, key: str, value: Any) -> None:
        """Change the value of an argument of the data module or the module, such as `data.batch_size`."""
        section, _, name = key.partition(".")
        self.config[f"{section}.init_args.{name}"] = value
        self.__dict__.pop("_resolved", None)

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


def _data_arguments(resolved: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the data module of a resolved configuration."""
    arguments: dict[str, Any] = (resolved["data"] or {}).get("init_args", {})
    return arguments


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


def parse_config(
    verb: str, argv: Sequence[str], base: Path | None = None, *, training: bool = True, draws_seed: bool = True
) -> LitlabCLI:
    """Parse `[NAME | PATH] [-c FILE ...] [--key value ...]`.

    Args:
        verb: Named in messages.
        argv: The arguments.
        base: Configuration file that the arguments change, such as that of a run. An experiment cannot be named then.
        training: Whether the configuration is to train; without it, callbacks that only a training needs, which may not
            exist any more, are left out.
        draws_seed: Whether a training with `seed_everything: false` draws a seed; a resumed one of an earlier version
            has recorded none.

    Raises:
        UserError: An argument or a file is invalid.
    """
    is_recorded, request = base is not None, read_request(verb, argv, base)
    config_args = ["--config", str(request.base)] if request.base else []
    if request.base and (kept := _kept(request.contents[0], training=training)) != request.contents[0]:
        config_args[:2] = ["--config", json.dumps(kept)]
    args, name = [*config_args, *request.args], request.name or "NAME"
    cli = LitlabCLI(args, default_name=name, training=training, draws_seed=training and draws_seed)
    if not is_recorded:
        check_nulls(cli.config)
    check_keys(cli.config, request.args, request.base, announce=verb != "sweep" and is_rank_zero())
    return cli


def _kept(content: dict[str, Any], *, training: bool) -> dict[str, Any]:
    """Return a configuration without objects of Python, and without what only a training needs if there is none."""
    content = as_classes(content) if OBJECTS in content else content
    return content if training else without_training_parts(content)


def print_full_help() -> NoReturn:
    """Print every argument that LightningCLI takes, and exit."""
    LitlabCLI(["--help"], default_name="NAME")
    raise AssertionError("argparse exits after its help")

"""The configuration of a training whose module, data and arguments of the Trainer are objects of Python."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger
from lightning.pytorch.utilities.model_helpers import is_overridden

from pipelines.config.cli import LitlabCLI, parse_config
from pipelines.config.experiments import read_yaml
from pipelines.config.objects import KEY, Objects, described, digests, plain, unrecorded
from pipelines.runtime.errors import UserError
from pipelines.runtime.hooks import remove_hooks
from pipelines.runtime.log import logger
from pipelines.runtime.project_packages import warn_of_hidden_modules

TRAINED: "WeakKeyDictionary[LightningModule, str]" = WeakKeyDictionary()  # modules of this process, with their last run
_LISTS = ("callbacks", "logger")
_OWN = ("config", "data", "model", KEY)


class StandIn(LightningModule):
    """Stands for the module while the other keys are parsed."""


class ObjectCLI(LitlabCLI):
    """A configuration with objects; `build` returns them.

    Args:
        objects: The objects. Functions that make them are called here, after the seed was set.
        args: Command-line arguments: keys of the Trainer and of litlab.
        base: Configuration of the run that is continued, or whose model is loaded.
        training: Whether the parts are to train.

    Raises:
        UserError: A key or a value is refused, or a function makes something else.
    """

    def __init__(
        self, objects: Objects, args: Sequence[str], *, base: Path | None = None, training: bool = True
    ) -> None:
        _check_keys(args)
        self._trainer_objects = dict(objects.trainer)
        recorded = [] if base is None else ["--config", json.dumps(_without_objects(read_yaml(base)))]
        model = ["--model", f"{StandIn.__module__}.{StandIn.__qualname__}"]
        super().__init__([*recorded, *model, *args], default_name="", training=training, draws_seed=base is None)
        self._model, self._data = objects.make_model(), objects.make_data()
        self.config.name = self.config.name or type(self._model).__name__
        self._parts = {"model": described(self._model), "data": None if self._data is None else described(self._data)}
        self._digests = digests(model=self._model, data=self._data)
        if training:
            _warn_of_unrecorded(self._model)
        self._weights_of = self.trained_by if base is None else read_yaml(base).get("weights")
        if training and base is None and self.trained_by:
            name = type(self._model).__name__
            logger.warning(
                "%s starts from the weights that run %s left; a function makes a new one: model=lambda: %s()",
                *(name, self.trained_by, name),
            )
        elif training and base is None and isinstance(objects.model, LightningModule):
            name = type(self._model).__name__
            logger.info(
                "%s has weights already: seed %s decides the order and dropout; a function makes the whole run "
                "repeatable: model=lambda: %s()",
                *(name, self.config.seed_everything, name),
            )

    def build(self) -> tuple[LightningDataModule | None, LightningModule]:
        if self.config.trainer.barebones:
            raise UserError("trainer.barebones switches off logging and checkpoints, which a run of litlab consists of")
        if self._training and self._data is None and not is_overridden("train_dataloader", self._model):
            raise UserError(f"data is required: {type(self._model).__name__} has no train_dataloader of its own")
        self._remove_hooks()  # of a training that was refused
        self._make_repeatable(self._data, self._model)
        warn_of_hidden_modules(type(self._data), type(self._model))
        return self._data, self._model

    def release(self, run_id: str) -> None:
        """Give the objects back to the user after the training of a run."""
        self._remove_hooks()
        TRAINED[self._model] = run_id

    def _remove_hooks(self) -> None:
        for part in (self._model, self._data, *self.callbacks):
            if part is not None:
                remove_hooks(part)

    @property
    def trained_by(self) -> str:
        """Id of the run that trained the module before in this process; "" for a new module."""
        return TRAINED.get(self._model, "")

    @cached_property
    def callbacks(self) -> list[Callback]:
        callbacks = self._trainer_objects.get("callbacks") or []
        return [*super().callbacks, *(callbacks if isinstance(callbacks, list | tuple) else [callbacks])]

    def loggers(self) -> list[Logger | None]:
        loggers = self._trainer_objects.get("logger") or []
        given = loggers if isinstance(loggers, list | tuple) else [loggers]
        return [None if isinstance(one, MLFlowLogger) else one for one in given] or super().loggers()

    def profiler(self) -> Any:
        return self._trainer_objects.get("profiler") or super().profiler()

    def make_trainer(self, checkpoint_keys: Any = None, **kwargs: Any) -> Trainer:
        own = {key: value for key, value in self._trainer_objects.items() if key not in _LISTS}
        return super().make_trainer(checkpoint_keys, **{**own, **kwargs})

    def command(self, verb: str, argv: Sequence[str]) -> str:
        """Return the call of Python that makes the run."""
        data = "" if self._data is None else f", data={type(self._data).__name__}"
        return f"litlab.{verb}(model={type(self._model).__name__}{data}, ...)  # in Python, with {shlex.join(argv)}"

    def resume_call(self, run_id: str) -> str:
        """Return the call of Python that continues the run."""
        data = "" if self._data is None else ", data=..."
        return f'litlab.resume("{run_id}", model=...{data}) in Python'

    def set_value(self, key: str, value: Any) -> None:
        section, _, name = key.partition(".")
        part = self._parts[section]
        assert part is not None
        part["init_args"][name] = value
        self.__dict__.pop("_resolved", None)

    @cached_property
    def _resolved(self) -> dict[str, Any]:
        resolved: dict[str, Any] = {**super()._resolved, **self._parts, KEY: self._digests}
        for key, value in self._trainer_objects.items():
            resolved["trainer"][key] = (
                [described(one) for one in self.callbacks] if key == "callbacks" else plain(value)
            )
        if self._weights_of:
            resolved["weights"] = self._weights_of  # the run that left the weights which it starts from
        return resolved


def configure(
    verb: str,
    arguments: Sequence[str],
    base: Path | None,
    objects: Objects | None,
    *,
    training: bool = True,
    draws_seed: bool = True,
) -> LitlabCLI:
    """Return the configuration of a training or of a run: of objects if they are given, or else as `parse_config`."""
    if objects is not None:
        return ObjectCLI(objects, arguments, base=base, training=training)
    return parse_config(verb, arguments, base=base, training=training, draws_seed=draws_seed)


@contextmanager
def trains_objects(cli: LitlabCLI, run_id: str) -> Iterator[None]:
    """Give objects back to the user after the block, in which a run trains them."""
    try:
        yield
    finally:
        if isinstance(cli, ObjectCLI):
            cli.release(run_id)


def describe_changes(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Return how objects differ from those that a run was trained with."""
    texts = [f"the source of the {key.partition('.')[2]} has changed" for key in changed if key.startswith(f"{KEY}.")]
    others = {key: values for key, values in changed.items() if not key.startswith(f"{KEY}.")}
    return "; ".join([*texts, *(f"{key} is {before}, not {now}" for key, (before, now) in others.items())])


def _check_keys(args: Sequence[str]) -> None:
    for key in (token.partition("=")[0].removeprefix("--") for token in args if token.startswith("--")):
        if key.partition(".")[0] in ("data", "model"):
            raise UserError(f"{key}: {key.partition('.')[0]} is an object; change it in Python")


def _without_objects(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a recorded configuration has besides objects; the user gives them again."""
    trainer = {key: value for key, value in config["trainer"].items() if key not in (*_LISTS, "profiler")}
    return {**{key: value for key, value in config.items() if key not in (*_OWN, "weights")}, "trainer": trainer}


def _warn_of_unrecorded(model: LightningModule) -> None:
    if names := unrecorded(model):
        logger.warning(
            "%s: the run does not know its %s: self.save_hyperparameters() in __init__ records them",
            type(model).__name__,
            ", ".join(names),
        )

"""Modules, data and arguments of the Trainer that are given as objects of Python, and what a run records of them.

A configuration has their classes with their hyperparameters, as if they came from YAML, and under the key `objects` a
digest of the source of each class.
"""

import copy
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from pipelines.config.source_digest import source_digest
from pipelines.config.suggestions import nearest_key
from pipelines.runtime.class_paths import import_named
from pipelines.runtime.errors import UserError
from pipelines.runtime.metric_names import split_of

KEY = "objects"  # of a configuration: digests of the source, by section
SPLITS = ("train", "val", "test", "predict")
Model = LightningModule | Callable[[], LightningModule]
Data = LightningDataModule | DataLoader[Any] | Mapping[str, Any] | Callable[[], Any] | None


@dataclass(frozen=True)
class Objects:
    """What a run is trained with.

    Attributes:
        model: A module, or a function that makes one after the seed was set.
        data: A data module, a loader for the training, a mapping with loaders for "train", "val", "test" and "predict",
            or a function that makes one of these; None if the module has its own loaders.
        trainer: Arguments of Lightning's Trainer that are objects, such as callbacks; others are keys.
    """

    model: Model
    data: Data = None
    trainer: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.model, type) or not (isinstance(self.model, LightningModule) or callable(self.model)):
            name = self.model.__name__ if isinstance(self.model, type) else type(self.model).__name__
            raise UserError(
                f"model: {name} is neither a LightningModule nor a function that makes one, lambda: {name}()"
            )
        known = inspect.signature(Trainer).parameters
        if unknown := [key for key in self.trainer if key not in known]:
            hint = f": did you mean {nearest}?" if (nearest := nearest_key(unknown[0], known)) else ""
            raise UserError(f"trainer: {unknown[0]} is no argument of Lightning's Trainer{hint}")

    def make_model(self) -> LightningModule:
        """Return the module.

        Raises:
            UserError: The function returns something else.
        """
        model = self.model if isinstance(self.model, LightningModule) else self.model()
        if not isinstance(model, LightningModule):
            raise UserError(f"model: the function returns {type(model).__name__}, not a LightningModule")
        return model

    def copy_of_model(self) -> "Objects":
        """Return the same with a copy of a module, whose weights can be replaced; and without data."""
        model = copy.deepcopy(self.model) if isinstance(self.model, LightningModule) else self.model
        return Objects(model)

    def make_data(self) -> LightningDataModule | None:
        """Return the data module.

        Raises:
            UserError: The data are something else.
        """
        data: Any = self.data
        if callable(data) and not isinstance(data, LightningDataModule | DataLoader | Mapping):
            data = data()
        if data is None or isinstance(data, LightningDataModule):
            return data
        loaders = data if isinstance(data, Mapping) else {"train": data}
        _check_splits(loaders)
        return DataLoaders(loaders)


def _check_splits(loaders: Mapping[str, Any]) -> None:
    """Check what names the loaders.

    Raises:
        UserError: A name is none of a split, or the training has no loader.
    """
    allowed = f"The keys are {', '.join(SPLITS)}, of which train is required"
    for key in map(str, loaders):
        if key not in SPLITS:
            nearest = split_of(key) or nearest_key(key, SPLITS)
            hint = f"did you mean {nearest}? " if nearest in SPLITS else ""
            raise UserError(f"data: unknown key {key}: {hint}{allowed}")
    if "train" not in loaders:
        raise UserError(f"data: there is no loader of train; {allowed}")


def build_of(objects: Objects) -> Callable[[], LightningModule]:
    """Return the function that makes the module of each of several trainings.

    Raises:
        UserError: It is a module, which would go on from the weights of the training before.
    """
    if isinstance(objects.model, LightningModule):
        name = type(objects.model).__name__
        raise UserError(f"model: several trainings need a function that makes the module: model=lambda: {name}(...)")
    return objects.model


class DataLoaders(LightningDataModule):
    """Loaders as a data module, which has only the methods for those that there are.

    Args:
        loaders: By split.
    """

    def __init__(self, loaders: Mapping[str, Any]) -> None:
        super().__init__()
        self.loaders = dict(loaders)
        for split in loaders:
            self.__dict__[f"{split}_dataloader"] = lambda split=split: self.loaders[split]


def described(part: Any) -> dict[str, Any]:
    """Return class and hyperparameters of an object as a configuration has them."""
    cls = type(part)
    if isinstance(part, DataLoaders):
        return {"class_path": cls.__name__, "init_args": {key: _loader(one) for key, one in part.loaders.items()}}
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": hyperparameters(part)}


def hyperparameters(part: Any) -> dict[str, Any]:
    """Return what `save_hyperparameters` has kept, or else the attributes with the names of the arguments."""
    if saved := dict(getattr(part, "hparams", {})):
        return {str(key): plain(value) for key, value in saved.items() if not str(key).startswith("_")}
    names = [name for name in inspect.signature(type(part)).parameters if name in vars(part)]
    return {name: plain(vars(part)[name]) for name in names if not isinstance(vars(part)[name], nn.Module)}


def unrecorded(part: Any) -> list[str]:
    """Return the arguments of an object's class of which a run does not know the values."""
    known = hyperparameters(part)
    return [one.name for one in arguments_of(type(part)) if one.name not in known]


def arguments_of(cls: type) -> list[inspect.Parameter]:
    """Return the arguments of a class, without `*args` and `**kwargs`."""
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [one for one in inspect.signature(cls).parameters.values() if one.kind not in kinds]


def plain(value: Any) -> Any:
    """Return a value as JSON has it, or else its type or text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        text = str(value)
        return type(value).__qualname__ if " at 0x" in text or len(text) > 200 else text


def is_plain(value: Any) -> bool:
    """Return whether a configuration can have a value itself."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def digests(**parts: Any) -> dict[str, str]:
    """Return the digest of the source of each object's class."""
    given = {section: type(part) for section, part in parts.items() if part is not None}
    return {section: source_digest(cls) for section, cls in given.items() if cls is not DataLoaders}


def _loader(loader: Any) -> dict[str, Any]:
    """Return what a loader draws: its data set, how many examples, in which batches; of tensors, their digest too."""
    if not isinstance(loader, DataLoader):
        return {"dataset": type(loader).__name__}
    dataset: Any = loader.dataset
    facts = {"dataset": type(dataset).__name__, "batch_size": loader.batch_size}
    facts |= {"shuffle": isinstance(loader.sampler, RandomSampler)}
    try:
        facts["examples"] = len(dataset)
    except TypeError:  # an iterable one
        return facts
    return facts | ({"sha256": _tensors_digest(dataset)} if isinstance(dataset, TensorDataset) else {})


def _tensors_digest(dataset: TensorDataset) -> str:
    digest = hashlib.sha256()
    for tensor in dataset.tensors:
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{array.dtype}{tuple(array.shape)}".encode())
        digest.update(array.view(-1).numpy().tobytes())
    return digest.hexdigest()[:16]


def as_classes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run of objects without them, if their classes can be imported and are the same.

    Raises:
        UserError: They cannot; the message says what to use instead.
    """
    recorded: dict[str, str] = config[KEY]
    for section in ("model", "data"):
        if (part := config.get(section)) is not None and (why := _why_not(part, recorded.get(section))):
            name = part["class_path"].rpartition(".")[2]
            raise UserError(
                f"{section} {name} was given as an object in Python, and {why}. In Python: "
                "litlab.load(RUN, model=..., data=...) for test and predict, litlab.resume(RUN, model=..., data=...)"
            )
    return {key: value for key, value in config.items() if key != KEY}


def _why_not(part: Mapping[str, Any], digest: str | None) -> str:
    """Return why a class with its hyperparameters does not give the object again; "" if it does."""
    path = str(part["class_path"])
    try:
        cls = import_named(path)
    except Exception:  # whatever the user's file raises
        return f"{path} cannot be imported"
    if path.startswith("__main__.") or not isinstance(cls, type):
        return f"{path} cannot be imported"
    if source_digest(cls) != digest:
        return f"the source of {path} has changed"
    parameters = {one.name: one for one in arguments_of(cls)}
    needed = {name for name, one in parameters.items() if one.default is one.empty}
    if not needed <= set(part["init_args"]) <= set(parameters):
        return f"{path} takes other arguments than the hyperparameters that it has saved"
    return ""

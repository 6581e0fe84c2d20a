"""What a checkpoint contains: hyperparameters as plain configuration, and whatever else can be pickled."""

import dataclasses
from collections import Counter, OrderedDict
from collections.abc import Mapping
from enum import Enum
from functools import cache
from io import BytesIO
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

from pipelines.runtime.log import logger
from pipelines.runtime.text import first_line

HYPERPARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters")  # Lightning's keys
HYPERPARAMETERS_TYPE = "hparams_type"  # a class of OmegaConf
_VALUES = {str, int, float, complex, bool, bytes, type(None), torch.Size, torch.dtype, torch.device}
_TENSORS = {torch.Tensor, torch.nn.Parameter}
_LEFT_OUT = object()


def serialize(checkpoint: dict[str, Any]) -> tuple[memoryview, bool]:
    """Return the bytes of a checkpoint, and whether they hold only tensors and plain values.

    Hyperparameters become plain configuration; those that are none, such as modules and functions, are left out: a run
    has them in its config.yaml. Entries that cannot be pickled are left out with a warning.
    """
    content = _with_plain_hyperparameters(checkpoint)
    if is_plain(content):
        return _saved(content), True
    try:
        return _saved(content), False
    except Exception:  # of any kind: classes decide how they are pickled
        kept = _without_unpicklable(content, "")
        if kept is _LEFT_OUT:
            raise
        return _saved(kept), False


def is_plain(value: Any) -> bool:
    """Return whether `torch.load` restores a value without unpickling objects."""
    try:
        return _is_plain(value)
    except RecursionError:  # it contains itself
        return False


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind in _VALUES:
        return True
    if kind in _TENSORS:
        return _is_plain(value.__dict__)
    if kind in (dict, OrderedDict, Counter):
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    return kind in (list, tuple, set) and all(map(_is_plain, value))


def plain_configuration(value: Any) -> Any:
    """Return a hyperparameter as YAML would hold it: paths and enums as text, numbers of NumPy as Python's.

    Raises:
        TypeError: It is not plain configuration, such as a module or a function.
    """
    if is_plain(value):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, np.generic | np.ndarray):
        return plain_configuration(value.tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain_configuration(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping) or type(value).__name__ == "Namespace":
        items = value if isinstance(value, Mapping) else vars(value)
        return {plain_configuration(key): plain_configuration(item) for key, item in items.items()}
    if isinstance(value, list | tuple | set | frozenset) or type(value).__name__ == "ListConfig":  # OmegaConf's
        return [plain_configuration(item) for item in value]
    raise TypeError(f"{_describe(value)} is not plain configuration")


def _saved(content: Any) -> memoryview:
    file = BytesIO()
    torch.save(content, file)
    return file.getbuffer()


def _with_plain_hyperparameters(checkpoint: dict[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for key in HYPERPARAMETERS:
        given = checkpoint.get(key)
        if given is not None and not is_plain(given):
            changed[key] = {}
            for name, value in given.items():
                try:
                    changed[key][str(name)] = plain_configuration(value)
                except Exception:  # noqa: S112  # also of properties that fail
                    continue
    if not changed:
        return checkpoint
    return {key: value for key, value in (checkpoint | changed).items() if key != HYPERPARAMETERS_TYPE}


def _without_unpicklable(value: Any, name: str) -> Any:
    """Return a value without the entries of its dictionaries that cannot be pickled, each of which is reported once."""
    if is_plain(value):
        return value
    if type(value) in (dict, OrderedDict):
        kept = {key: _without_unpicklable(item, f"{name}/{key}" if name else str(key)) for key, item in value.items()}
        return type(value)((key, item) for key, item in kept.items() if item is not _LEFT_OUT)
    if type(value) in (list, tuple):
        items = [_without_unpicklable(item, f"{name}/{index}") for index, item in enumerate(value)]
        return _LEFT_OUT if any(item is _LEFT_OUT for item in items) else type(value)(items)
    try:
        _saved(value)
    except Exception as error:
        _warn_left_out(name, _describe(value), first_line(error))
        return _LEFT_OUT
    return value


@cache
def _warn_left_out(name: str, what: str, why: str) -> None:
    logger.warning("Checkpoints are saved without %s, %s, which cannot be pickled: %s", name, what, why)


def _describe(value: Any) -> str:
    kind = type(value)
    named = getattr(value, "__qualname__", None)
    return f"{kind.__name__} {named}" if named else f"a {kind.__module__}.{kind.__qualname__}"

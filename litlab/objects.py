"""Modules, data and Trainer arguments that are given as objects."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.runtime.errors import UserError

if TYPE_CHECKING:
    from pipelines.config.objects import Data, Model, Objects


def object_keys(
    experiment: object, config: object, from_run: object, trainer: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the keys that go with a model.

    Raises:
        UserError: There is an experiment too.
    """
    for name, value in (("experiment", experiment), ("config", config), ("from_run", from_run)):
        if value:
            raise UserError(f"{name} and model exclude each other: give one of them")
    return split_trainer(trainer)[0]


def split_trainer(trainer: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of a Trainer that are keys of a configuration, and those that are objects.

    Raises:
        UserError: It is no mapping, such as a Trainer.
    """
    from pipelines.config.objects import is_plain

    if not isinstance(trainer or {}, Mapping):
        raise UserError(
            "trainer: expected a dict of its arguments, such as {'max_epochs': 5}; litlab creates the Trainer"
        )
    items = (trainer or {}).items()
    keys = {f"trainer.{key}": value for key, value in items if is_plain(value)}
    return keys, {key: value for key, value in items if not is_plain(value)}


def make_objects(model: "Model | None", data: "Data", trainer: Mapping[str, Any] | None = None) -> "Objects | None":
    """Return the objects of a run; None without a model.

    Raises:
        UserError: There are data or Trainer arguments, but no model; or one of them has the wrong type.
    """
    if model is None:
        if data is not None or trainer:
            raise UserError("data and trainer are given with a model: litlab.fit(model=..., data=..., trainer=...)")
        return None
    from pipelines.config.objects import Objects

    return Objects(model, data, split_trainer(trainer)[1])

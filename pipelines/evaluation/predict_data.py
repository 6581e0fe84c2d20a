"""Predict with a module's own `predict_step` on its own data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.base import ImageDataModule
from datamodules.in_memory import InMemoryDataModule
from pipelines.config.bare_trainer import bare_trainer
from pipelines.config.example_batch import has_loader, part_of_batch, to_cpu
from pipelines.config.objects import Objects
from pipelines.evaluation.batch_targets import BatchTargets
from pipelines.evaluation.forward_method import method_of
from pipelines.evaluation.load_run import load_run, needed_keys
from pipelines.runtime.errors import UserError
from pipelines.runtime.hooks import replace_hook
from pipelines.runtime.signals import reraise_keyboard_interrupt
from pipelines.runtime.silence import hidden_warnings

Column = Sequence[Any]
MAX_COLUMNS = 256
_STATISTICS = (torch.min, torch.mean, torch.max)
_LOADERS = (
    ("predict_dataloader", "predict", ""),
    ("test_dataloader", "test", "test"),
    ("val_dataloader", "fit", "validation"),  # stage "fit" sets up what a data module splits
)


@dataclass(frozen=True)
class Predictions:
    """What a module predicts for its data.

    Attributes:
        values: What `predict_step` returned, the batches joined: a tensor, list, or a dictionary of these.
        classes: Names of the classes; empty if unknown.
        remarks: Which data and which method were used, where these are not the module's own for prediction.
        loaders: The part of the values that is of each data loader, by its name or index; empty if there is one.
        targets: The true value of each example of the test or validation set, where there is one number; by the name of
            the data loader, "" if there is one.
    """

    values: Any
    classes: tuple[str, ...]
    remarks: list[str]
    loaders: dict[str, Any] = field(default_factory=dict)
    targets: dict[str, Tensor] = field(default_factory=dict)

    def table(self) -> dict[str, Column]:
        """Return one column for each number or text that there is for an example, in the order of the data.

        Of class probabilities, these are the most probable class and its probability; of other outputs for the classes
        of known targets, the class is added. The first column is the index of the example; if there are several data
        loaders, that of the loader comes before it, and each has its own index.

        Raises:
            UserError: There is not one row for each example, or the rows are too long for a table.
        """
        if not self.loaders:
            columns = self._columns_of(self.values, self.targets.get(""))
            return {"index": range(_rows(columns)), **columns}
        parts = {name: self._columns_of(values, self.targets.get(name)) for name, values in self.loaders.items()}
        first, *others = parts.values()
        if any(columns.keys() != first.keys() for columns in others):
            raise self._no_table()
        return {
            "loader": [name for name, columns in parts.items() for _ in range(_rows(columns))],
            "index": [index for columns in parts.values() for index in range(_rows(columns))],
            **{name: [cell for columns in parts.values() for cell in columns[name]] for name in first},
        }

    def _columns_of(self, values: Any, targets_N: Tensor | None) -> dict[str, Column]:
        columns = self._predicted_columns(values)
        if targets_N is None or len(targets_N) != _rows(columns):
            return columns
        if not _are_classes(targets_N, values):
            return {"target": targets_N.tolist(), **columns}
        names = self._class_names(values)
        predicted = [names[index] for index in values.argmax(1).tolist()]
        return {"target": [names[index] for index in targets_N.tolist()], "class": predicted, **columns}

    def _class_names(self, values: Tensor) -> Sequence[str | int]:
        return self.classes if len(self.classes) == values.shape[1] else range(values.shape[1])

    def _predicted_columns(self, values: Any) -> dict[str, Column]:
        if _are_probabilities(self.values):
            probability_N, class_N = values.max(1)
            names = self._class_names(values)
            return {"class": [names[index] for index in class_N.tolist()], "probability": probability_N.tolist()}
        columns: dict[str, Column] = {}
        for name, value in _named(values):
            columns |= _columns(name, value)
        lengths = set(map(len, columns.values()))
        if not columns or len(lengths) > 1 or len(columns) > MAX_COLUMNS:
            raise self._no_table()
        return columns

    def _no_table(self) -> UserError:
        parts = ", ".join(f"{name} {_describe(value)}" for name, value in _named(self.values)) or "nothing"
        return UserError(f"predict_step returns no table ({parts}): --out FILE.pt saves it as it is")

    def summary(self) -> list[list[str]]:
        """Return a header and, for each tensor, its shape per example and its lowest, mean and highest value."""
        tensors = {name: value for name, value in _named(self.values) if isinstance(value, Tensor) and value.ndim}
        rows = [
            [name, "x".join(map(str, value.shape[1:])) or "1", *(f"{of(value.double()):.4g}" for of in _STATISTICS)]
            for name, value in tensors.items()
        ]
        return [["", "per example", "lowest", "mean", "highest"], *rows]


def predict_data(
    run_id: str,
    overrides: Sequence[str] = (),
    *,
    input_key: str | None = None,
    forward: str = "forward",
    tracking_uri: str | None = None,
    trust: bool = False,
    objects: Objects | None = None,
) -> Predictions:
    """Predict with the selected checkpoint of a run: its `predict_step` on its `predict_dataloader`.

    Without a `predict_dataloader`, the test set is predicted, or else the validation set. Without a `predict_step`,
    a method is called with a part of each batch.

    Args:
        run_id: A run.
        overrides: Other values for keys of its configuration.
        input_key: Without a `predict_step`: the part of a batch that the method takes; see `part_of_batch`.
        forward: Without a `predict_step`: name of the method.
        tracking_uri: Where the run is; by default the project's mlflow.db.
        trust: See `load_checkpoint`.
        objects: Module and data of a run that was trained with objects.

    Raises:
        UserError: There is no such run, data or method.
    """
    loaded = load_run(run_id, overrides, tracking_uri=tracking_uri, weights=False, trust=trust, objects=objects)
    data, model = loaded.data, loaded.model
    remarks = _choose_loader(data, model)
    is_labelled = bool(remarks)  # the test or validation set
    if not is_overridden("predict_step", model):
        remarks.append(_call_instead(model, forward, input_key))
    targets = BatchTargets()
    trainer = bare_trainer(loaded.cli, needed_keys(model, data), callbacks=[targets] if is_labelled else None)
    try:
        in_memory = isinstance(data, InMemoryDataModule)
        with hidden_warnings(in_memory=in_memory, evaluates=True), reraise_keyboard_interrupt(trainer):
            results = trainer.predict(model, datamodule=data, ckpt_path=loaded.checkpoint, weights_only=True)
    except (ValueError, OSError) as error:
        if isinstance(data, InMemoryDataModule):
            raise UserError(str(error)) from error
        raise
    if not (results and isinstance(results[0], list) and len(getattr(trainer, "num_predict_batches", [])) > 1):
        results = [results or []]
    batches = [batch for loader in results for batch in loader]
    if not any(batch is not None for batch in batches):
        raise UserError(f"run {run_id}: {type(model).__name__}.predict_step returns nothing")
    loaders, names = {}, [""]
    if len(results) > 1:
        names = _loader_names(trainer.predict_dataloaders, len(results))
        named = zip(names, results, strict=True)
        loaders = {name: _join([to_cpu(batch) for batch in loader]) for name, loader in named if loader}
    values = _join([to_cpu(batch) for batch in batches])
    found = {name: targets.of_loader(index) for index, name in enumerate(names)}
    known = {name: target for name, target in found.items() if target is not None}
    return Predictions(values, tuple(getattr(data, "classes", ())), remarks, loaders, known)


def _loader_names(loaders: Any, count: int) -> list[str]:
    """Return the names of data loaders in a dictionary, else their indices."""
    is_named = isinstance(loaders, Mapping) and len(loaders) == count
    return [str(name) for name in (loaders if is_named else range(count))]


def _rows(columns: Mapping[str, Column]) -> int:
    return len(next(iter(columns.values())))


def _choose_loader(data: LightningDataModule | None, model: LightningModule) -> list[str]:
    """Choose the loader that the trainer predicts; return what to say if it is another than predict_dataloader."""
    of_files = getattr(type(data), "predict_dataloader", None) is ImageDataModule.predict_dataloader
    for name, stage, split in _LOADERS:
        if not has_loader(name, data, model) or (stage == "predict" and of_files):
            continue
        owner: Any = data if data is not None and is_overridden(name, data) else model
        load = getattr(owner, name)
        owner.predict_dataloader = lambda load=load: apply_to_collection(load(), DataLoader, _AsItIs)
        if stage == "predict":
            return []
        _set_up_for(data, stage)
        _set_up_for(model, stage)
        return [f"{type(owner).__name__} has no predict_dataloader: predicting the {split} set"]
    owner = model if data is None else data
    raise UserError(f"{type(owner).__name__} has no predict_dataloader, and neither test nor validation data")


class _AsItIs:
    """A data loader that Lightning does not create anew, which fails if its batch size was a positional argument."""

    def __init__(self, loader: "DataLoader[Any]") -> None:
        self._loader, self.dataset = loader, loader.dataset

    def __iter__(self) -> Iterator[Any]:
        return iter(self._loader)

    def __len__(self) -> int:
        return len(self._loader)


def _set_up_for(part: Any, stage_of_loader: str) -> None:
    """Set a data module or a module up for the stage whose loader is used."""
    if part is None:
        return
    replace_hook(part, "setup", lambda original, stage=None: original(stage_of_loader))  # the trainer says "predict"


def _call_instead(model: LightningModule, forward: str, key: str | None) -> str:
    """Let a method be called with a part of each batch, and say so."""
    method = method_of(model, forward)

    def predict_step(batch: Any, *_: Any) -> Any:
        return method(part_of_batch(batch, key))

    model.predict_step = predict_step  # type: ignore[method-assign]
    part = "the first part" if key is None else f"part {key}"
    return f"{type(model).__name__} has no predict_step: calling {forward} with {part} of each batch"


def _join(batches: Sequence[Any]) -> Any:
    """Join what predict_step returned for each batch; batches of different kinds stay a list."""
    first = batches[0]
    if all(isinstance(batch, Tensor) for batch in batches):
        if all(batch.ndim and batch.shape[1:] == first.shape[1:] for batch in batches):
            return torch.cat(list(batches))
        return torch.stack(list(batches)) if not any(batch.ndim for batch in batches) else list(batches)
    if all(isinstance(batch, Mapping) and batch.keys() == first.keys() for batch in batches):
        return {str(key): _join([batch[key] for batch in batches]) for key in first}
    if all(isinstance(batch, list | tuple) for batch in batches):
        if any(isinstance(item, Tensor | Mapping) for item in first) and len({len(batch) for batch in batches}) == 1:
            names = getattr(first, "_fields", range(len(first)))
            return {str(name): _join([batch[index] for batch in batches]) for index, name in enumerate(names)}
        return [item for batch in batches for item in batch]
    return list(batches)


def _are_probabilities(values: Any) -> bool:
    if not isinstance(values, Tensor) or values.ndim != 2 or values.shape[1] < 2 or not values.is_floating_point():
        return False
    return bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() < 1e-2).all())


def _are_classes(targets_N: Tensor, values: Any) -> bool:
    """Return whether the targets are indices of the columns of the values: of logits, or of probabilities."""
    if targets_N.is_floating_point() or not isinstance(values, Tensor) or values.ndim != 2 or values.shape[1] < 2:
        return False
    return int(targets_N.min()) >= 0 and int(targets_N.max()) < values.shape[1]


def _named(values: Any, name: str = "prediction") -> list[tuple[str, Any]]:
    """Return the parts of joined predictions with their names."""
    if not isinstance(values, dict):
        return [(name, values)]
    prefix = "" if name == "prediction" else f"{name}."
    return [part for key, value in values.items() for part in _named(value, f"{prefix}{key}")]


def _columns(name: str, value: Any) -> dict[str, Column]:
    if not isinstance(value, Tensor):
        return {name: value} if all(isinstance(item, str | int | float | bool) for item in value) else {}
    if value.ndim <= 1:
        return {name: value.reshape(-1).tolist()}
    rows = value.reshape(len(value), -1)
    if rows.shape[1] > MAX_COLUMNS:
        return dict.fromkeys(map(str, range(MAX_COLUMNS + 1)), ())
    names = [name] if rows.shape[1] == 1 else [f"{name}_{index}" for index in range(rows.shape[1])]
    return dict(zip(names, rows.T.tolist(), strict=True))


def _describe(value: Any) -> str:
    return f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"of type {type(value).__name__}"

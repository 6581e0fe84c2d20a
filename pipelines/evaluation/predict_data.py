"""Predict with a module's own `predict_step` on its own data."""

from collections.abc import Iterator, Mapping, Sequence
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
from pipelines.evaluation.later_tests import record_test
from pipelines.evaluation.load_run import load_run, needed_keys
from pipelines.evaluation.prediction_table import Predictions
from pipelines.runtime.errors import UserError
from pipelines.runtime.hooks import replace_hook
from pipelines.runtime.signals import reraise_keyboard_interrupt
from pipelines.runtime.silence import hidden_warnings

_LOADERS = (
    ("predict_dataloader", "predict", ""),
    ("test_dataloader", "test", "test"),
    ("val_dataloader", "fit", "validation"),  # stage "fit" sets up what a data module splits
)


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
    if is_labelled:
        record_test(loaded, overrides)
    found = {name: targets.of_loader(index) for index, name in enumerate(names)}
    known = {name: target for name, target in found.items() if target is not None}
    return Predictions(values, tuple(getattr(data, "classes", ())), remarks, loaders, known)


def _loader_names(loaders: Any, count: int) -> list[str]:
    """Return the names of data loaders in a dictionary, else their indices."""
    is_named = isinstance(loaders, Mapping) and len(loaders) == count
    return [str(name) for name in (loaders if is_named else range(count))]


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

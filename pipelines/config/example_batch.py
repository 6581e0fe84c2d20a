"""One batch of a data module, and what the module makes of it: for commands that need an example of the input.

The batch is one that Lightning passes to a step, after all hooks. The arguments of `forward` are those that the step
passes, where it calls the module itself.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from pipelines.config.bare_trainer import bare_trainer
from pipelines.config.cli import LitlabCLI
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import kind_and_message

# Evaluation before training, which may augment.
_STAGES = {
    "test": ("test_dataloader", "test_step"),
    "validate": ("val_dataloader", "validation_step"),
    "fit": ("train_dataloader", "training_step"),
}


@dataclass(frozen=True)
class ExampleBatch:
    """A batch on the CPU.

    Attributes:
        batch: As a step receives it.
        args: Positional arguments with which the step called the module; None if it did not call it.
        kwargs: Its keyword arguments.
        dataset: That the loader reads.
    """

    batch: Any
    args: tuple[Any, ...] | None
    kwargs: dict[str, Any]
    dataset: Any

    def attribute(self, name: str) -> Any:
        """Return an attribute of the data set, or of the one that a subset is of; None if there is none."""
        dataset = self.dataset
        while dataset is not None and not hasattr(dataset, name):
            dataset = getattr(dataset, "dataset", None)
        return getattr(dataset, name, None)

    def forward_arguments(self, key: str | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of `forward`.

        Args:
            key: The part of the batch that is the input; None for what the step passes, or else the first part.

        Raises:
            UserError: The batch has no such part.
        """
        if key is None and self.args is not None:
            return self.args, self.kwargs
        return (part_of_batch(self.batch, key),), {}

    def image_input(self, key: str | None = None) -> Tensor:
        """Return the part of the batch that holds images, shape (N, C, H, W).

        Raises:
            UserError: The batch has no such part, or it holds no images.
        """
        images = part_of_batch(self.batch, key)
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] not in (1, 3):
            part = "the first part" if key is None else f"part {key}"
            raise UserError(
                f"{part} of a batch is {describe(images)}, not images of shape (N, 1 or 3, H, W): --input KEY names "
                "the part that holds them"
            )
        return images


def class_names(data: LightningDataModule | None, example: ExampleBatch, count: int) -> tuple[str, ...]:
    """Return the names of the classes where the data have them, otherwise their numbers."""
    for names in (getattr(data, "classes", None), getattr(data, "class_names", None), example.attribute("classes")):
        if isinstance(names, Sequence) and not isinstance(names, str) and len(names) == count:
            return tuple(map(str, names))
    return tuple(map(str, range(count)))


def part_of_batch(batch: Any, key: str | None = None) -> Any:
    """Return a part of a batch by its index, its key in a dictionary or its attribute; by default the first.

    Args:
        batch: What a data loader returns.
        key: Such as "0", "image" or, of a dictionary in a list, "0.image".

    Raises:
        UserError: The batch has no such part.
    """
    if key and "." in key:
        for name in key.split("."):
            batch = part_of_batch(batch, name)
        return batch
    if isinstance(batch, Mapping):
        known = {str(name): part for name, part in batch.items()}
        if (key or next(iter(known), "")) in known:
            return known[key or next(iter(known))]
        raise UserError(f"--input {key}: the batch has the keys {', '.join(known)}")
    if isinstance(batch, list | tuple):
        fields = getattr(batch, "_fields", ())
        if key in fields:
            return getattr(batch, str(key))
        index = key or "0"
        if index.isdecimal() and int(index) < len(batch):
            return batch[int(index)]
        raise UserError(f"--input {key}: the batch has the parts {', '.join(fields or map(str, range(len(batch))))}")
    if key is None or (key == "0" and isinstance(batch, Tensor)):
        return batch
    if hasattr(batch, key):
        return getattr(batch, key)
    raise UserError(f"--input {key}: the batch is a {type(batch).__name__} without this part")


def first_example(value: Any) -> Any:
    """Return nested arguments of a forward pass with the first example of each tensor only."""
    return apply_to_collection(value, Tensor, lambda tensor: tensor[:1] if tensor.ndim else tensor)


def describe(value: Any) -> str:
    """Describe a value for a message: its type, and the shape of a tensor."""
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def to_cpu(value: Any) -> Any:
    """Return a nested value with its tensors on the CPU."""
    from lightning.fabric.utilities import move_data_to_device

    return move_data_to_device(value, torch.device("cpu"))


def example_batch(cli: LitlabCLI, data: LightningDataModule | None, model: LightningModule) -> ExampleBatch:
    """Return a batch of the test set, else of the validation set, else of the training set.

    Args:
        cli: The configuration.
        data: The data module; None if the module has its own loaders.
        model: Left as it is.

    Raises:
        UserError: There is no batch; the message says why.
    """
    reasons = []
    for stage, (loader, step) in _STAGES.items():
        if not (has_loader(loader, data, model) and is_overridden(step, model)):
            continue
        try:
            return _capture(cli, data, model, stage)
        except Exception as error:  # of the data module or of the step
            reasons.append(f"{stage}: {kind_and_message(error)}")
    raise UserError("no example batch: " + ("; ".join(reasons) or "there is no data loader"))


def evaluation_batches(
    cli: LitlabCLI, data: LightningDataModule | None, model: LightningModule, max_values: int
) -> list[ExampleBatch]:
    """Return the batches of the test set, else of the validation set, until they hold so many values.

    Args:
        cli: The configuration.
        data: The data module; None if the module has its own loaders.
        model: Left as it is.
        max_values: Of all tensors together.

    Raises:
        UserError: There are neither test nor validation data.
    """
    for stage in ("test", "validate"):
        loader, step = _STAGES[stage]
        if not (has_loader(loader, data, model) and is_overridden(step, model)):
            continue
        collect = _Collect(max_values)
        setattr(model, step, lambda batch, batch_idx, dataloader_idx=0: None)  # only the batches are needed
        try:
            _run(cli, data, model, stage, collect, fast_dev_run=False)
        finally:
            delattr(model, step)
        return collect.batches
    raise UserError(f"{type(model if data is None else data).__name__} has neither test nor validation data")


def has_loader(name: str, data: LightningDataModule | None, model: LightningModule) -> bool:
    """Return whether the data module or the module has a loader, such as "test_dataloader"."""
    return (data is not None and is_overridden(name, data)) or is_overridden(name, model)


class _Captured(Exception):  # noqa: N818 (not an error)
    """The example is known; the rest of the step is not needed."""


class _Capture(Callback):
    def __init__(self) -> None:
        self.batch: Any = None
        self.args: tuple[Any, ...] | None = None
        self.kwargs: dict[str, Any] = {}
        self.dataset: Any = None

    def on_test_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *args: Any) -> None:
        loaders = trainer.test_dataloaders or trainer.val_dataloaders or trainer.train_dataloader
        while isinstance(loaders, list | tuple | dict) and loaders:
            loaders = next(iter(loaders.values() if isinstance(loaders, dict) else loaders))
        self.batch, self.dataset = batch, getattr(loaders, "dataset", None)

    def on_before_backward(self, *args: Any) -> None:
        raise _Captured

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        raise _Captured

    on_validation_batch_start = on_train_batch_start = on_test_batch_start  # type: ignore[assignment]
    on_validation_batch_end = on_train_batch_end = on_test_batch_end

    def called(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record the first call of the module, which ends the step."""
        self.args, self.kwargs = args, kwargs
        raise _Captured


class _Collect(Callback):
    def __init__(self, max_values: int) -> None:
        self.batches: list[ExampleBatch] = []
        self._left = max_values

    def on_test_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *args: Any) -> None:
        self.batches.append(ExampleBatch(to_cpu(batch), None, {}, None))
        apply_to_collection(batch, Tensor, self._count)
        if self._left < 0:
            raise _Captured

    def on_test_epoch_end(self, *args: Any) -> None:
        raise _Captured  # before the hook of the module, which has no outputs

    on_validation_batch_start = on_test_batch_start  # type: ignore[assignment]
    on_validation_epoch_end = on_test_epoch_end  # type: ignore[assignment]

    def _count(self, tensor: Tensor) -> None:
        self._left -= tensor.numel()


def _capture(cli: LitlabCLI, data: LightningDataModule | None, model: LightningModule, stage: str) -> ExampleBatch:
    capture = _Capture()
    weights = {name: value.detach().clone() for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    hook = model.register_forward_pre_hook(capture.called, with_kwargs=True)
    try:
        _run(cli, data, model, stage, capture, fast_dev_run=True)
    finally:
        hook.remove()
        model.load_state_dict(weights, strict=False)
    if capture.batch is None:
        raise ValueError("the loader is empty")
    return ExampleBatch(to_cpu(capture.batch), to_cpu(capture.args), to_cpu(capture.kwargs), capture.dataset)


def _run(
    cli: LitlabCLI,
    data: LightningDataModule | None,
    model: LightningModule,
    stage: str,
    callback: Callback,
    *,
    fast_dev_run: bool,
) -> None:
    """Run a stage until the callback has what it needs. The module leaves the trainer and keeps its mode."""
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "precision": None,
        "num_sanity_val_steps": 0,
        "fast_dev_run": fast_dev_run,
    }
    trainer, training = bare_trainer(cli, callbacks=[callback], **settings), model.training
    run = {"test": trainer.test, "validate": trainer.validate, "fit": trainer.fit}[stage]
    options = {} if stage == "fit" else {"verbose": False}
    try:
        with suppress(_Captured):
            run(model, datamodule=data, **options)
    finally:
        model.trainer = None
        model.train(training)

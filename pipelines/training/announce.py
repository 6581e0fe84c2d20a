"""Print what a training is, before its first epoch."""

import inspect

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from datamodules.base import ImageDataModule
from datamodules.in_memory import InMemoryDataModule
from modules.finetuning import Finetuning
from pipelines.runtime.console import print_facts
from pipelines.runtime.log import logger
from pipelines.tracking.run import Run
from pipelines.tracking.uri import runs_page, view_command
from pipelines.training.job import SETS, Training
from pipelines.training.progress_bar import EpochBar

LOOKED_AT = 100  # images


def announce(training: Training, run: Run) -> None:
    """Print data, model, device, run and where to look, unless the progress bar is off or the user's own.

    Args:
        training: The prepared training.
        run: The run that it is recorded in.
    """
    if any(isinstance(callback, EpochBar) for callback in training.trainer.callbacks):  # type: ignore[attr-defined]
        data = describe_data(training)
        model = f"{type(training.model).__name__}, {_parameters(training.model)}, on {_devices(training.trainer)}"
        view = view_command(run.store.uri, runs_page(run.experiment_id))
        facts = {"data": data, "model": model, "run": f"{run.run_id}  {run.name}", "view": view}
        print_facts({"experiment": training.cli.config.name, **facts})
        if not training.checkpoint_callback.continues:
            _announce_images(training, run)


def _announce_images(training: Training, run: Run) -> None:
    """Print that images are read in another way than they may be meant to, with the keys that change it."""
    if resizing := _resizing(training):
        logger.info(resizing)
    if _is_first(run) and _are_grey(training.data):
        logger.info("The images are greyscale and are read as RGB; --data.channels 1 reads one channel")


def describe_data(training: Training) -> str:
    """Return the data module and, if it is litlab's, the sizes of its sets."""
    data = training.data
    if data is None:
        return f"loaders of {type(training.model).__name__}"
    if not isinstance(data, InMemoryDataModule):
        return type(data).__name__
    sizes = ", ".join(f"{size:,} {SETS[name]}" for name, size in data.sizes().items())
    return f"{type(data).__name__}, {sizes} examples"


def _resizing(training: Training) -> str:
    """Return how the images are resized that a published network gets, and which keys avoid it; "" if they are not."""
    data, model = training.data, training.model
    if not isinstance(data, ImageDataModule) or not isinstance(model, Finetuning) or not _has(data, "size"):
        return ""
    if (size := model.image_size) is None or data.input_shape[1:] == (size, size):
        return ""
    rows, columns = data.input_shape[1:]
    keeps = f"; --model.image_size {rows} trains on them as they are" if rows == columns else ""
    return f"The model resizes images of {rows}x{columns} to {size}x{size}{keeps}; --data.size {size} reads them so"


def _is_first(run: Run) -> bool:
    """Return whether no other run of its experiment has files here; True if a server has the files."""
    folder = run.folder.parent
    return run.store.folder is None or all(other == folder for other in folder.parent.iterdir())


def _are_grey(data: LightningDataModule | None) -> bool:
    """Return whether images were read as RGB, which could be read as greyscale: their channels are equal."""
    if not isinstance(data, ImageDataModule) or not _has(data, "channels"):
        return False
    pixels_NCHW = data.train_set.inputs[:LOOKED_AT]
    return pixels_NCHW.shape[1] == 3 and bool((pixels_NCHW == pixels_NCHW[:, :1]).all())


def _has(data: ImageDataModule, argument: str) -> bool:
    return argument in inspect.signature(type(data)).parameters


def _parameters(model: LightningModule) -> str:
    try:
        return f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters"
    except ValueError:  # lazy layers, which the first batch initialises
        return "parameters not yet known"


def _devices(trainer: Trainer) -> str:
    device = str(trainer.strategy.root_device)
    return device if trainer.world_size == 1 else f"{device} and {trainer.world_size - 1} more"

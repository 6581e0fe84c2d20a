"""Classify image files with a trained model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from datamodules.base import ImageDataModule
from modules.base import Classifier
from pipelines.evaluation.evaluate import bare_trainer, needed_keys
from pipelines.evaluation.load_run import load_run
from pipelines.runtime.errors import UserError
from pipelines.runtime.signals import reraise_keyboard_interrupt


@dataclass(frozen=True)
class Prediction:
    """The most probable class of an image.

    Attributes:
        file: The image.
        class_name: Name of the class.
        probability: Of that class, 0 to 1.
    """

    file: Path
    class_name: str
    probability: float


def predict(
    run_id: str,
    images: Sequence[Path],
    overrides: Sequence[str] = (),
    *,
    invert: bool = False,
    tracking_uri: str | None = None,
    trust: bool = False,
) -> list[Prediction]:
    """Classify image files with the selected checkpoint of a run. The training data are not needed.

    Args:
        run_id: A run that was trained to classify images.
        images: Files of any size and format; they are made grey or RGB, and resized to what the network takes.
        overrides: Other values for keys of the run's configuration, such as `["--trainer.accelerator", "cpu"]`.
        invert: Whether to invert the images: for dark on light, where the network has learnt light on dark.
        tracking_uri: Where the run is; by default the project's mlflow.db.
        trust: See `load_checkpoint`.

    Returns:
        A prediction for each image, in their order.

    Raises:
        UserError: There is no such run, it does not classify images, or a file is missing or not a readable image.
    """
    loaded = load_run(run_id, overrides, tracking_uri=tracking_uri, weights=False, trust=trust)
    data = loaded.data
    if not isinstance(data, ImageDataModule) or not isinstance(loaded.model, Classifier):
        raise UserError(f"run {run_id} was not trained to classify images")
    data.predict_on(list(images), invert=invert)
    trainer = bare_trainer(loaded.cli, checkpoint_keys=needed_keys(loaded.model, data))
    try:
        with reraise_keyboard_interrupt(trainer):
            batches = trainer.predict(loaded.model, datamodule=data, ckpt_path=loaded.checkpoint, weights_only=True)
    except (ValueError, FileNotFoundError) as error:
        raise UserError(str(error)) from error
    confidence_N, class_N = torch.cat(batches).max(1)
    found = zip(images, class_N.tolist(), confidence_N.tolist(), strict=True)
    return [Prediction(image, data.classes[index], confidence) for image, index, confidence in found]

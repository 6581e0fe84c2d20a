"""Classify image files with a trained model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS

from datamodules.base import ImageDataModule
from datamodules.images import image_names, open_image
from datamodules.sets import ImageFiles
from modules.base import Classifier
from pipelines.config.bare_trainer import bare_trainer
from pipelines.config.example_batch import class_names, example_batch
from pipelines.config.objects import Objects
from pipelines.evaluation.forward_method import logits_of
from pipelines.evaluation.load_run import LoadedRun, load_run, needed_keys, restore
from pipelines.evaluation.unlike_training import ImageCheck
from pipelines.runtime.errors import UserError
from pipelines.runtime.log import logger
from pipelines.runtime.signals import reraise_keyboard_interrupt
from pipelines.runtime.silence import hidden_warnings


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
    input_key: str | None = None,
    forward: str = "forward",
    tracking_uri: str | None = None,
    trust: bool = False,
    objects: Objects | None = None,
) -> list[Prediction]:
    """Classify image files with the selected checkpoint of a run. The training data are not needed.

    A warning names images that are far brighter, darker or flatter than those of the training.

    Args:
        run_id: A run that was trained to classify images.
        images: Files of any size and format; they are made grey or RGB, and resized to what the network takes. A folder
            stands for all images in it and in the folders below, in the order of their names.
        overrides: Other values for keys of the run's configuration, such as `["--trainer.accelerator", "cpu"]`.
        invert: Whether to invert the images: for dark on light, where the network has learnt light on dark.
        input_key: Of a module that is not litlab's: the part of a batch that is the image; see `part_of_batch`.
        forward: Of such a module: name of the method that maps images to logits.
        tracking_uri: Where the run is; by default the project's mlflow.db.
        trust: See `load_checkpoint`.
        objects: Module and data of a run that was trained with objects.

    Returns:
        A prediction for each image, in their order.

    Raises:
        UserError: There is no such run, it does not classify images, or a file is missing or not a readable image.
    """
    images = _image_files(images)
    loaded = load_run(run_id, overrides, tracking_uri=tracking_uri, weights=False, trust=trust, objects=objects)
    data = loaded.data
    if not isinstance(data, ImageDataModule):
        return _predict_with_transform(loaded, images, invert=invert, input_key=input_key, forward=forward)
    if not isinstance(loaded.model, Classifier):
        return _predict_as_read(loaded, data, images, invert=invert, forward=forward)
    data.predict_on(list(images), invert=invert)
    check = ImageCheck(data, loaded.run)
    trainer = bare_trainer(loaded.cli, checkpoint_keys=needed_keys(loaded.model, data))
    try:
        with hidden_warnings(in_memory=True, evaluates=True), reraise_keyboard_interrupt(trainer):
            batches = trainer.predict(loaded.model, datamodule=data, ckpt_path=loaded.checkpoint, weights_only=True)
    except (ValueError, FileNotFoundError) as error:
        raise UserError(str(error)) from error
    if warning := check.warning(images, invert=invert):
        logger.warning("%s", warning)
    confidence_N, class_N = torch.cat(batches).max(1)
    found = zip(images, class_N.tolist(), confidence_N.tolist(), strict=True)
    return [Prediction(image, data.classes[index], confidence) for image, index, confidence in found]


def _image_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files, and the images in the folders.

    Raises:
        UserError: There are no images in a folder, or it cannot be read.
    """
    files = list[Path]()
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        try:
            names = image_names(path, IMG_EXTENSIONS)
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from error
        if not names:
            raise UserError(f"{path}: no images in this folder; their names must end in {', '.join(IMG_EXTENSIONS)}")
        files += [path / name for name in names]
    return files


def _predict_as_read(
    loaded: LoadedRun, data: ImageDataModule, images: Sequence[Path], *, invert: bool, forward: str
) -> list[Prediction]:
    """Classify images with a module of the user's, read and normalised as the data of its training."""
    restore(loaded)
    check, found = ImageCheck(data, loaded.run), list[Prediction]()
    for path in images:
        try:
            batch = ImageFiles([path], data.input_shape, invert=invert)[0]
        except (ValueError, FileNotFoundError) as error:
            raise UserError(str(error)) from error
        inputs = data.on_after_batch_transfer((batch[0][None],), 0)[0].to(loaded.model.dtype)
        confidence, index = logits_of(loaded.model, forward, inputs).float().softmax(1)[0].max(0)
        found.append(Prediction(path, data.classes[int(index)], float(confidence)))
    if warning := check.warning(images, invert=invert):
        logger.warning("%s", warning)
    return found


def _predict_with_transform(
    loaded: LoadedRun, images: Sequence[Path], *, invert: bool, input_key: str | None, forward: str
) -> list[Prediction]:
    """Classify images with a module of the user's, after the transform of its data set."""
    restore(loaded)
    model, name = loaded.model, type(loaded.model).__name__
    example = example_batch(loaded.cli, loaded.data, model)
    inputs = example.image_input(input_key)
    transform = example.attribute("transform")
    if not callable(transform):
        raise UserError(
            f"{type(example.dataset).__name__} has no transform that makes an input of {name} of an image file; "
            "litlab predict RUN_ID predicts its own data"
        )
    rows = []
    for path in images:
        try:
            image = open_image(path, inputs.shape[1])
        except (ValueError, FileNotFoundError) as error:
            raise UserError(str(error)) from error
        rows.append(transform(ImageOps.invert(image) if invert else image))
    outputs = logits_of(model, forward, torch.stack(rows).to(inputs.dtype))
    confidence_N, class_N = outputs.float().softmax(1).max(1)
    names = class_names(loaded.data, example, outputs.shape[1])
    found = zip(images, class_N.tolist(), confidence_N.tolist(), strict=True)
    return [Prediction(image, names[index], confidence) for image, index, confidence in found]

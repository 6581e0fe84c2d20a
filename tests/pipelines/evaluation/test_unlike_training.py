"""Images that are unlike those of the training are warned of: inverted and blank ones, and no real test image."""

import contextlib
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.digits import Digits
from datamodules.statistics import brightness_and_contrast, image_statistics
from pipelines.cli import main
from pipelines.evaluation.predict import predict
from pipelines.runtime.log import logger
from pipelines.tracking.store import Store


def train(folder, *args):
    """Train with a separate database; return the run."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["fit", *args, "--trainer.max_epochs=1", "--tracking_uri", uri]) == 0
    store = Store(uri)
    (run,) = store.search(list(store.experiment_names()), "")
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("digits"), "digits-mlp")


@pytest.fixture(scope="module")
def colour_run(tmp_path_factory, small):
    linear = ["--model", "modules.linear.LinearClassifier"]
    return train(tmp_path_factory.mktemp("colours"), *small("cifar-base"), *linear)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Files of the test images of digits."""
    folder = tmp_path_factory.mktemp("files")
    images, _ = Digits().load(train=False)
    paths = [folder / f"{number}.png" for number in range(len(images))]
    for path, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels[0].numpy()).save(path)
    return paths


@pytest.fixture
def warned(caplog):
    """Return a function that predicts and returns the warnings."""

    def check(run, paths, **options):
        caplog.clear()
        predict(run.run_id, paths, tracking_uri=run.store.uri, **options)
        return [record.getMessage() for record in caplog.records if "unlike" in record.getMessage()]

    logger.addHandler(caplog.handler)
    yield check
    logger.removeHandler(caplog.handler)


def save(path, pixels):
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)
    return path


def test_real_test_images_are_not_warned_of(run, digits, warned):
    assert warned(run, digits) == []


def test_inverted_images_are_warned_of_once_and_not_with_invert(run, digits, warned, tmp_path):
    inverted = [save(tmp_path / path.name, 255 - np.asarray(Image.open(path))) for path in digits[:20]]
    (message,) = warned(run, inverted)
    assert message.startswith(f"20 of 20 images are unlike those of the training: {inverted[0]} has brightness 0.")
    assert re.search(r"\(training: 0\.3[01] ± 0\.03\)", message)
    assert message.endswith("They may be inverted: try --invert")
    assert warned(run, inverted, invert=True) == []
    (message,) = warned(run, digits[:5], invert=True)
    assert message.endswith("They may be inverted: leave out --invert")


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_blank_page_is_warned_of(run, digits, warned, tmp_path, level):
    blank = save(tmp_path / "blank.png", np.full((40, 30), level))
    (message,) = warned(run, [digits[0], blank])
    assert message.startswith(f"1 of 2 images are unlike those of the training: {blank} has brightness")
    assert "contrast 0.00 (training: 0.3" in message
    assert message.endswith("it is nearly blank")


def test_colour_images(colour_run, cifar_format, warned, tmp_path):
    real = sorted((cifar_format / "cifar10" / "test").rglob("*.png"))
    assert warned(colour_run, real) == []
    red = save(tmp_path / "red.png", np.full((32, 32, 3), (255, 0, 0)))
    (message,) = warned(colour_run, [red])
    assert message.endswith("it is nearly blank")
    inverted = save(tmp_path / "inverted.png", 255 - np.asarray(Image.open(real[0])))
    assert len(warned(colour_run, [inverted])) == 1


def test_a_run_of_an_earlier_version_has_no_statistics_and_no_warning(run, warned, tmp_path):
    path = run.file("data.json")
    text = path.read_text()
    content = json.loads(text)
    del content["images"]
    blank = save(tmp_path / "blank.png", np.zeros((28, 28)))
    try:
        path.write_text(json.dumps(content))
        assert warned(run, [blank]) == []
    finally:
        path.write_text(text)


def test_contrast_is_within_channels():
    pixels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    pixels[0, 0] = 255  # a red page
    pixels[1, :, :2] = 255  # half of it is white
    brightness, contrast = brightness_and_contrast(pixels)
    torch.testing.assert_close(brightness, torch.tensor([1 / 3, 0.5]))
    torch.testing.assert_close(contrast, torch.tensor([0.0, 0.5]))


def test_statistics_of_a_large_set_are_those_of_a_part_of_it():
    images = torch.randint(0, 256, (9000, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = images // torch.arange(1, 10, dtype=torch.uint8).repeat(1000)[:, None, None, None]
    brightness, contrast = brightness_and_contrast(images)
    found = image_statistics(images)
    assert found["brightness"]["mean"] == pytest.approx(float(brightness.mean()), rel=0.05)
    assert found["contrast"]["sd"] == pytest.approx(float(contrast.std()), rel=0.05)

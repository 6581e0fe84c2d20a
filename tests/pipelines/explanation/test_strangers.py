"""Explanations of image classifiers that are not litlab's: batches as dictionaries, another name for forward."""

import json

import pytest
import torch
from PIL import Image

from pipelines.commands.explain_methods import METHODS
from pipelines.commands.fit import main as fit
from pipelines.explanation.load_target import load_target
from pipelines.runtime.errors import UserError
from pipelines.tracking.store import Store
from tests.fixtures.strangers.verbs import Pictures

STRANGERS = "tests.fixtures.strangers.verbs"
NAMED = {"input_key": "image", "forward": "classify"}


def train(folder, model, data):
    """Train a stranger's module; return the tracking URI and the run id."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    content = {"model": f"{STRANGERS}.{model}", "data": f"{STRANGERS}.{data}"}
    (folder / "own.yaml").write_text(json.dumps({**content, "trainer": {"max_epochs": 6, "accelerator": "cpu"}}))
    assert fit("fit", ["-c", str(folder / "own.yaml"), "--tracking_uri", uri]) == 0
    store = Store(uri)
    (run,) = store.search([store.experiment_id("own")], "")
    return uri, run.run_id


@pytest.fixture(scope="module")
def picture_run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("pictures"), "PictureNet", "PictureData")


@pytest.fixture(scope="module")
def pictures(picture_run):
    uri, run_id = picture_run
    return load_target(run_id, tracking_uri=uri, **NAMED)


def test_the_images_are_those_of_the_test_set_with_their_labels_and_class_names(pictures):
    images, labels = pictures.test_set()
    assert images.shape == (32, 1, 8, 8)
    assert labels.equal(Pictures(32, 2).labels)
    assert pictures.classes == ("left", "right")
    assert pictures.input_shape == (1, 8, 8)


def test_pixels_are_mapped_to_the_input_of_the_network(pictures):
    inputs, (images, _) = Pictures(32, 2).images, pictures.test_set()
    step = (inputs.max() - inputs.min()) / 255
    assert (pictures.normalize(images / 255) - inputs).abs().max() <= step
    assert pictures.logits(images / 255).argmax(1).equal(pictures.network.classify(inputs).argmax(1))


def test_layers_have_the_names_that_inspect_prints(pictures):
    assert pictures.layer("conv1") is pictures.network.conv
    assert pictures.activations("conv", torch.rand(2, 1, 8, 8)).shape == (2, 4, 8, 8)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_explains_a_module_of_the_users(litlab, picture_run, tmp_path, method):
    uri, run_id = picture_run
    options = {
        "maximise": ["--steps", "3"],
        "adversarial": ["--image", "0", "--target", "right", "--steps", "2"],
        "occlusion": ["--image", "1", "--block", "2"],
        "filters": ["--layer", "conv"],
        "embedding": ["--layer", "conv"],
    }
    given = ["--input", "image", "--forward", "classify", "--out", tmp_path, "--tracking_uri", uri]
    outcome = litlab("explain", method, run_id, *options.get(method, ["--image", "1"]), *given)
    assert outcome.code == 0, outcome.err
    assert list(tmp_path.rglob("*.png"))


def test_a_file_is_read_with_the_transform_of_the_data_set(pictures, tmp_path):
    Image.new("L", (16, 16), 255).save(tmp_path / "a.png")
    pixels = pictures.read(tmp_path / "a.png")
    assert pixels.shape == (1, 8, 8)
    assert float(pictures.normalize(pixels / 255).mean()) == pytest.approx(2.0, abs=0.1)


def test_what_is_missing_is_said(picture_run, tmp_path_factory):
    uri, run_id = picture_run
    with pytest.raises(UserError, match="the first part of a batch is a list, not images"):
        load_target(run_id, tracking_uri=uri)
    with pytest.raises(UserError, match="PictureNet has no method forward: --forward NAME"):
        load_target(run_id, tracking_uri=uri, input_key="image")
    with pytest.raises(UserError, match=r"PictureNet\.loss does not map a tensor of shape .* to the logits"):
        load_target(run_id, tracking_uri=uri, input_key="image", forward="loss")
    uri, run_id = train(tmp_path_factory.mktemp("points"), "Net", "Points")
    with pytest.raises(UserError, match=r"the first part of a batch is a tensor of shape \(16, 4\), not images"):
        load_target(run_id, tracking_uri=uri)


def test_a_method_that_calls_the_module_maps_images_to_logits(litlab, tmp_path):
    uri, run_id = train(tmp_path, "PictureDictionary", "PictureData")
    target = load_target(run_id, tracking_uri=uri, input_key="image", forward="logits")
    images, _ = target.test_set()
    assert len(images) == 32
    assert torch.allclose(target.logits(images / 255), target.network.classify(target.normalize(images / 255)))
    Image.new("L", (16, 16), 255).save(tmp_path / "a.png")
    given = ["--input", "image", "--forward", "logits", "--tracking_uri", uri]
    outcome = litlab("predict", run_id, tmp_path / "a.png", *given)
    assert outcome.code == 0, outcome.err
    outcome = litlab("predict", run_id, tmp_path / "a.png", "--input", "image", "--tracking_uri", uri)
    assert outcome.code == 2
    assert "PictureDictionary.forward does not map" in outcome.err

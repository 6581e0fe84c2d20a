"""Runs of the experiment `backbone` on images in folders: fit, predict, explain, resume, sweep."""

import json
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image

from datamodules.digits import Digits
from pipelines.training.failures import RunFailedError
from pipelines.training.fit import fit
from pipelines.training.resume import resume

CRASH = "tests.fixtures.strangers.classes.CrashOnce"  # at the start of the last epoch

pytestmark = pytest.mark.usefixtures("tables")


@pytest.fixture
def images(tmp_path) -> Path:
    """Scans of three digits as files of two sizes in class folders."""
    pixels, labels = Digits().load(train=True)
    for name in ("0", "1", "7"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index, scan in enumerate(pixels[labels == int(name)][:20, 0].numpy()):
            image = Image.fromarray(scan).resize((20, 24) if index % 2 else (32, 32))
            image.save(tmp_path / "images" / name / f"{index:02}.png")
    return tmp_path / "images"


@pytest.fixture
def arguments(images, tiny_network) -> list[str]:
    """Arguments that train a tiny network from its published weights."""
    data = ["--data.data_dir", str(images), "--data.size", "24", "--data.batch_size", "16"]
    return ["backbone", *data, "--model.name", tiny_network, "--trainer.max_epochs", "2"]


def test_a_backbone_is_trained_tested_used_and_explained_without_its_published_weights(
    litlab, arguments, images, tmp_path, monkeypatch
):
    fitted = litlab("fit", *arguments)
    assert fitted.code == 0, fitted.err
    monkeypatch.setattr("tiny_network.build", without_published_weights())
    predicted = litlab("predict", fitted.run_id, images / "0" / "00.png", images / "7" / "01.png")
    assert predicted.code == 0, predicted.err
    assert len(predicted.out.splitlines()) == 3
    tested = litlab("test", fitted.run_id)
    recorded, now = (line.split()[1:] for line in tested.out.splitlines()[2:4])
    assert recorded == now
    explained = litlab("explain", "saliency", fitted.run_id, "--image", "0", "--out", tmp_path)
    assert explained.code == 0, explained.err
    assert litlab("compare", "backbone").code == 0


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ([], "24x24 to 16x16; --model.image_size 24 trains on them as they are; --data.size 16 reads them so"),
        (["--data.size=[24,20]"], "24x20 to 16x16; --data.size 16 reads them so"),
        (["--data.size=16"], ""),
        (["--model.image_size=24"], ""),
    ],
)
def test_a_training_says_which_keys_agree_if_the_model_resizes_the_images_of_the_data(litlab, arguments, sizes, told):
    outcome = litlab("fit", *arguments, *sizes, "--trainer.max_epochs=1")
    assert outcome.code == 0, outcome.err
    assert ("The model resizes images of" in outcome.err) == bool(told)
    assert told in outcome.err


def without_published_weights():
    """Return the function of the tiny network as it is where its weights are missing."""
    import tiny_network

    build = tiny_network.build

    def build_without(pretrained: bool = False, width: int = 4):
        if pretrained:
            raise FileNotFoundError("no weights here")
        return build(False, width)

    return build_without


def test_a_missing_file_of_weights_is_one_line_and_leaves_no_run(litlab, arguments, uri, tmp_path):
    outcome = litlab("fit", *arguments, "--model.weights", tmp_path / "mine.pth")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == f"litlab: {tmp_path / 'mine.pth'}: no such file"
    client = MlflowClient(uri)
    assert not client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def test_weights_that_cannot_be_downloaded_are_named_with_their_address(litlab, arguments, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no server answers
    outcome = litlab("fit", *arguments, "--model.name", "resnet18")
    assert outcome.code == 2
    message = outcome.err.splitlines()[-1]
    assert "https://download.pytorch.org/models/resnet18-" in message
    assert "model.pretrained to false" in message


def test_a_misspelt_network_is_one_line_that_names_the_key(litlab, arguments):
    outcome = litlab("fit", *arguments, "--model.name", "resnet1888")
    assert outcome.code == 2
    assert "model.name: resnet1888: no such network; did you mean resnet18" in outcome.err


def test_normalised_data_are_refused_before_the_first_step(litlab, arguments):
    outcome = litlab("fit", *arguments, "--data.normalization", "standard")
    assert outcome.code == 2
    assert "set data.normalization to unit" in outcome.err


@pytest.mark.parametrize("frozen_epochs", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_resumed_run_has_the_same_frozen_epochs_and_needs_no_published_weights(
    arguments, tmp_path, monkeypatch, frozen_epochs
):
    more = ["--model.freeze", str(frozen_epochs), "--model.lr_decay", "0.8", "--trainer.max_epochs", "4"]
    name, *options = [*arguments, *more]
    whole = fit(name, overrides=options)
    crash = {"class_path": CRASH, "init_args": {"flag": str(tmp_path / "crashed")}}
    with pytest.raises(RunFailedError, match="out of luck") as failed:
        fit(name, overrides=[*options, "--trainer.callbacks", json.dumps([crash])])
    monkeypatch.setattr("tiny_network.build", without_published_weights())
    resumed = resume(failed.value.run_id)
    for key in ("train/loss", "val/loss", "test/loss"):
        assert resumed.metrics[key] == whole.metrics[key], key


@pytest.mark.slow
def test_networks_are_searched_like_any_other_value(litlab, arguments, tmp_path, uri):
    space = tmp_path / "space.yaml"
    values = {"model.freeze": ["none", "backbone"]}
    space.write_text(yaml.safe_dump({"experiment": "backbone", "sampler": "grid", "space": values}))
    outcome = litlab("sweep", "-c", space, *arguments[1:], "--trainer.max_epochs", "1")
    assert outcome.code == 0, outcome.err

"""`litlab test`, `validate` and `predict`: from the run alone."""

import csv
import re
import shutil

import pytest
from mlflow import MlflowClient
from PIL import Image

from datamodules.digits import Digits
from pipelines.commands.fit import main as fit


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A store with one finished run, for all tests of this file."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    assert fit("fit", ["digits-mlp", "--trainer.max_epochs", "4", "--tracking_uri", uri]) == 0
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("digits-mlp").experiment_id])
    return uri, run.info.run_id


@pytest.fixture
def run_id(finished, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", finished[0])
    return finished[1]


@pytest.fixture
def scans(tmp_path):
    """Three test images as files of several formats, and their labels."""
    data = Digits()
    data.setup("test")
    paths = [tmp_path / "a.png", tmp_path / "b.bmp", tmp_path / "c.tif"]
    for path, pixels in zip(paths, data.test_set.inputs, strict=False):
        Image.fromarray(pixels[0].numpy()).save(path)
    return paths, data.test_set.targets[:3].tolist()


@pytest.mark.parametrize("verb", ["test", "validate"])
def test_a_run_measured_again_gives_what_was_recorded(litlab, run_id, verb):
    outcome = litlab(verb, run_id)
    numbers = {line.split()[0]: line.split()[1:] for line in outcome.out.splitlines() if line.strip()}
    assert outcome.code == 0
    assert numbers["now"] == numbers["recorded"]
    assert all(re.fullmatch(r"\d\.\d{4}", number) for number in numbers["now"])
    assert outcome.err == ""


def test_measuring_on_other_data_is_reported(litlab, run_id):
    outcome = litlab("validate", run_id, "--data.split_seed", "1")
    assert outcome.code == 0
    assert outcome.err == "litlab: note: this is not the val set that the run was measured on\n"


@pytest.mark.parametrize("verb", ["test", "validate", "predict"])
def test_an_unknown_run_is_reported(litlab, run_id, scans, verb):
    images = scans[0] if verb == "predict" else []
    outcome = litlab(verb, "0123456789abcdef", *images)
    assert outcome.code == 2
    assert "there is no run '0123456789abcdef'" in outcome.err


def test_predict_writes_class_and_probability_of_any_image_file(litlab, run_id, scans, tmp_path):
    paths, labels = scans
    outcome = litlab("predict", run_id, *paths, "--out", tmp_path / "predictions.csv")
    assert outcome.code == 0
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [str(path) for path in paths]
    assert [int(row["class"]) for row in rows] == labels
    assert all(0.1 < float(row["probability"]) <= 1 for row in rows)


def test_predict_needs_none_of_the_training_data(litlab, mnist_format, scans, tmp_path):

    folder = tmp_path / "data"
    shutil.copytree(mnist_format, folder)
    data = ["--data.data_dir", folder, "--data.verify", "false", "--data.n_val", "200", "--trainer.max_epochs", "4"]
    run_id = litlab("fit", "mnist-mlp", *data).run_id
    shutil.rmtree(folder)
    outcome = litlab("predict", run_id, *scans[0])
    assert outcome.code == 0
    assert [int(row["class"]) for row in csv.DictReader(outcome.out.splitlines())] == scans[1]


def test_inverted_images_are_the_same_images_with_invert(litlab, run_id, scans, tmp_path):
    paths, _ = scans
    inverted = [tmp_path / f"inverted-{path.stem}.png" for path in paths]
    for path, copy in zip(paths, inverted, strict=True):
        Image.eval(Image.open(path), lambda value: 255 - value).save(copy)

    def answers(*args):
        return [
            (row["class"], row["probability"])
            for row in csv.DictReader(litlab("predict", run_id, *args).out.splitlines())
        ]

    assert answers(*inverted, "--invert") == answers(*paths)
    assert answers(*inverted) != answers(*paths)


def test_an_unreadable_image_is_reported_and_nothing_is_written(litlab, run_id, scans, tmp_path):
    bad = tmp_path / "notes.png"
    bad.write_text("not an image")
    outcome = litlab("predict", run_id, *scans[0], bad, "--out", tmp_path / "predictions.csv")
    assert outcome.code == 2
    assert f"{bad}: not a readable image" in outcome.err
    assert not (tmp_path / "predictions.csv").exists()


def test_a_folder_stands_for_the_images_in_it_and_in_its_folders(litlab, run_id, scans, tmp_path):
    folder = tmp_path / "images"
    for path, own in zip(scans[0], ("b", "a", ""), strict=True):
        (folder / own).mkdir(parents=True, exist_ok=True)
        path.rename(folder / own / path.name)
    (folder / "a" / "notes.txt").write_text("no image")
    outcome = litlab("predict", run_id, folder)
    assert outcome.code == 0
    assert [row["file"] for row in csv.DictReader(outcome.out.splitlines())] == [
        str(folder / name) for name in ("a/b.bmp", "b/a.png", "c.tif")
    ]


def test_a_folder_without_images_is_refused(litlab, run_id, tmp_path):
    (tmp_path / "empty").mkdir()
    outcome = litlab("predict", run_id, tmp_path / "empty")
    assert outcome.code == 2
    assert "empty: no images in this folder; their names must end in .jpg" in outcome.err


@pytest.mark.parametrize("verb", ["test", "predict", "explain saliency"])
def test_an_experiment_in_place_of_a_run_is_told_how_its_runs_are_named(litlab, run_id, verb):
    outcome = litlab(*verb.split(), "digits-mlp")
    assert outcome.code == 2
    assert "digits-mlp is an experiment; name one of its runs: best:digits-mlp, latest:digits-mlp or a" in outcome.err


def test_a_missing_image_is_reported_before_anything_is_loaded(litlab):
    outcome = litlab("predict", "some-run", "nowhere.png")
    assert outcome.code == 2
    assert "nowhere.png: no such file" in outcome.err


def test_a_run_without_a_checkpoint_cannot_be_measured(litlab, uri):
    litlab("fit", "digits-mlp", "--model.optimizer.lr", "1e30")
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("digits-mlp").experiment_id])
    outcome = litlab("test", run.info.run_id)
    assert outcome.code == 2
    assert "(FAILED) has no checkpoints/best.ckpt" in outcome.err

"""`litlab predict` and `register` of modules and data that are not litlab's."""

import csv
import json
from pathlib import Path
from urllib.parse import urlparse

import mlflow
import pytest
import torch
from PIL import Image

from datamodules.diabetes import Diabetes
from datamodules.digits import Digits
from pipelines.tracking.store import Store
from tests.fixtures.strangers.verbs import Net, Pictures, points

pytestmark = pytest.mark.usefixtures("tables")

STRANGERS = "tests.fixtures.strangers.verbs"


@pytest.fixture
def fit(litlab, tmp_path):
    """Return a function that trains a stranger's module on a stranger's data, and returns the run id."""

    def run(model, data="Points", epochs=1):
        parts = {name: f"{STRANGERS}.{part}" for name, part in (("model", model), ("data", data)) if part}
        content = {**parts, "trainer": {"max_epochs": epochs, "accelerator": "cpu"}}
        (tmp_path / "own.yaml").write_text(json.dumps(content))
        outcome = litlab("fit", "-c", tmp_path / "own.yaml")
        assert outcome.code == 0, outcome.err
        return outcome.run_id

    return run


def rows_of(text):
    return list(csv.DictReader(text.splitlines()))


def test_predict_calls_predict_step_on_the_predict_dataloader(litlab, fit, tmp_path):
    run_id = fit("PredictingNet", "PredictedPoints")
    outcome = litlab("predict", run_id)
    assert outcome.code == 0, outcome.err
    rows = rows_of(outcome.out)
    assert list(rows[0]) == ["index", "class", "logits_0", "logits_1", "name"]
    assert [row["index"] for row in rows] == [str(index) for index in range(10)]
    assert [row["name"] for row in rows] == ["n0", "n1", "n2", "n3", "n0", "n1", "n2", "n3", "n0", "n1"]
    assert all(row["class"] == str(int(float(row["logits_1"]) > float(row["logits_0"]))) for row in rows)
    assert "predict" not in outcome.err, "nothing to remark"
    saved = litlab("predict", run_id, "--out", tmp_path / "out.pt")
    assert saved.code == 0, saved.err
    values = torch.load(tmp_path / "out.pt", weights_only=True)
    assert values["logits"].shape == (10, 2)


def test_predict_says_that_it_predicts_the_test_set_and_calls_forward(litlab, fit):
    run_id = fit("Net")
    outcome = litlab("predict", run_id)
    assert outcome.code == 0, outcome.err
    assert "Points has no predict_dataloader: predicting the test set" in outcome.err
    assert "Net has no predict_step: calling forward with the first part of each batch" in outcome.err
    rows = rows_of(outcome.out)
    assert len(rows) == 64
    assert list(rows[0]) == ["index", "target", "class", "prediction_0", "prediction_1"]
    assert [int(row["target"]) for row in rows] == points(64, 2).tensors[1].tolist()
    assert all((row["class"] == "1") == (float(row["prediction_1"]) > float(row["prediction_0"])) for row in rows)


def test_a_module_with_its_own_loaders_predicts_all_of_its_validation_sets(litlab, fit):
    run_id = fit("NetWithLoaders", data=None)
    outcome = litlab("predict", run_id)
    assert outcome.code == 0, outcome.err
    assert "NetWithLoaders has no predict_dataloader: predicting the validation set" in outcome.err
    rows = rows_of(outcome.out)
    assert len(rows) == 96
    assert {"loader", "target", "class"} <= rows[0].keys()
    outcome = litlab("register", run_id, "loaders")
    assert outcome.code == 0, outcome.err


def test_probabilities_become_class_and_probability(litlab, fit, tmp_path):
    outcome = litlab("predict", fit("ProbabilityNet"), "--out", tmp_path / "out.csv")
    assert outcome.code == 0, outcome.err
    rows = rows_of((tmp_path / "out.csv").read_text())
    assert len(rows) == 64
    assert list(rows[0]) == ["index", "target", "class", "probability"]
    assert all(0.5 <= float(row["probability"]) <= 1 and row["class"] in ("0", "1") for row in rows)


def test_a_row_names_its_loader_if_there_are_several_and_each_has_its_own_index(litlab, fit, tmp_path):
    rows = rows_of(litlab("predict", fit("Net", "TwoNamedSets")).out)
    assert list(rows[0]) == ["loader", "index", "prediction_0", "prediction_1"]
    assert [(row["loader"], row["index"]) for row in rows] == [
        (name, str(index)) for name, count in (("in", 20), ("ood", 7)) for index in range(count)
    ]
    run_id = fit("ProbabilityNet", "TwoPredictedSets")
    for _ in range(2):  # the second time, litlab's own file is replaced
        assert litlab("predict", run_id, "--out", tmp_path / "out.csv").code == 0
    rows = rows_of((tmp_path / "out.csv").read_text())
    assert list(rows[0]) == ["loader", "index", "class", "probability"]
    assert [row["loader"] for row in rows] == ["0", "0", "0", "1", "1"]
    assert [row["index"] for row in rows] == ["0", "1", "2", "0", "1"]


def test_a_terminal_shows_a_summary_of_many_numbers_and_says_what_keeps_them(litlab, fit, monkeypatch):
    run_id = fit("MaskNet")
    note = "24 numbers for each of 64 examples: --out FILE.pt keeps their shape"
    piped = litlab("predict", run_id)
    assert note in piped.err
    assert len(rows_of(piped.out)) == 64
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")  # without escape codes
    shown = litlab("predict", run_id)
    assert note in shown.err
    header, row, hint = shown.out.splitlines()
    assert header.split() == ["per", "example", "lowest", "mean", "highest"]
    assert row.split()[:2] == ["prediction", "1x4x6"]
    assert 0 < float(row.split()[2]) <= float(row.split()[3]) <= float(row.split()[4]) < 1
    assert "--out FILE.csv" in hint


def test_a_terminal_shows_the_class_and_the_three_highest_of_many_logits_and_a_file_has_all(
    litlab, tmp_path, monkeypatch
):
    fitted = litlab(
        *("fit", "digits-mlp", "--model", f"{STRANGERS}.DigitNet", "--trainer.max_epochs=1"),
        *("--trainer.accelerator=cpu", "--monitor=val_loss"),
    )
    assert fitted.code == 0, fitted.err
    assert litlab("predict", fitted.run_id, "--out", tmp_path / "all.csv").code == 0
    everything = rows_of((tmp_path / "all.csv").read_text())
    assert list(everything[0]) == ["index", "target", "class", *(f"prediction_{index}" for index in range(10))]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")  # without escape codes
    shown = litlab("predict", fitted.run_id)
    assert "the highest 3 outputs are shown; --out FILE.csv writes all of them" in shown.err
    assert "examples are classified correctly" in shown.err
    rows = rows_of(shown.out)
    assert list(rows[0]) == ["index", "target", "class", "highest_1", "highest_2", "highest_3"]
    for row, whole in zip(rows, everything, strict=True):
        logits = {str(index): float(whole[f"prediction_{index}"]) for index in range(10)}
        first, second, third = sorted(logits, key=logits.get, reverse=True)[:3]
        assert [row[f"highest_{rank}"].partition(": ")[0] for rank in (1, 2, 3)] == [first, second, third]
        assert float(row["highest_1"].partition(": ")[2]) == pytest.approx(logits[first], rel=1e-3)


def test_litlabs_own_classifiers_predict_their_test_set(litlab):
    run_id = litlab("fit", "digits-mlp", "--trainer.max_epochs", "1").run_id
    outcome = litlab("predict", run_id)
    assert outcome.code == 0, outcome.err
    rows = rows_of(outcome.out)
    correct = sum(row["target"] == row["class"] for row in rows)
    assert f"{correct} of 360 examples are classified correctly" in outcome.err
    assert (len(rows), correct / 360) == (360, pytest.approx(Store().find(run_id).metrics["test/acc"]))


def test_the_targets_of_a_regression_are_numbers(litlab):
    run_id = litlab("fit", "diabetes-mlp", "--trainer.max_epochs", "1").run_id
    rows = rows_of(litlab("predict", run_id).out)
    assert list(rows[0]) == ["index", "target", "prediction"]
    data = Diabetes()
    data.setup("test")
    assert [float(row["target"]) for row in rows] == pytest.approx(data.test_set.targets.reshape(-1).tolist(), rel=1e-5)


def test_what_is_missing_to_predict_is_said(litlab, fit):
    run_id = fit("PictureNet", "PictureData")
    outcome = litlab("predict", run_id)
    assert outcome.code == 2
    assert "PictureNet has no method forward: --forward NAME" in outcome.err
    outcome = litlab("predict", run_id, "--forward", "classify", "--input", "picture")
    assert outcome.code == 2
    assert "the batch has the keys id, image, label" in outcome.err
    outcome = litlab("predict", run_id, "--forward", "classify", "--input", "image")
    assert outcome.code == 0, outcome.err
    assert len(rows_of(outcome.out)) == 32


def test_image_files_are_classified_with_the_transform_of_the_data_set(litlab, fit, tmp_path):
    run_id = fit("PictureNet", "PictureData", epochs=8)
    pictures = Pictures(4, 9)
    for index, image in enumerate(pictures.images):
        pixels = ((image[0] * 0.25 + 0.5) * 255).byte().numpy()
        Image.fromarray(pixels).resize((16, 16), Image.Resampling.NEAREST).convert("RGB").save(
            tmp_path / f"{index}.png"
        )
    files = [tmp_path / f"{index}.png" for index in range(4)]
    options = ["--forward", "classify", "--input", "image"]
    outcome = litlab("predict", run_id, *files, *options)
    assert outcome.code == 0, outcome.err
    assert [row["class"] for row in rows_of(outcome.out)] == ["left", "right", "left", "right"]
    assert all(float(row["probability"]) > 0.6 for row in rows_of(outcome.out))
    outcome = litlab("predict", run_id, *files)
    assert outcome.code == 2
    assert "--input KEY" in outcome.err


def test_image_files_need_a_transform(litlab, fit, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    outcome = litlab("predict", fit("Net"), tmp_path / "a.png")
    assert outcome.code == 2
    assert "the first part of a batch is a tensor of shape (16, 4), not images" in outcome.err


def test_a_model_is_exported_from_one_batch_when_it_is_registered(litlab, fit, mlflow_store, uri):
    run_id = fit("Net")
    outcome = litlab("register", run_id, "points", "--alias", "best")
    assert outcome.code == 0, outcome.err
    mlflow_store(uri)
    model = mlflow.pytorch.load_model("models:/points@best")
    values = torch.load(Store(uri).find(run_id).file("checkpoints/best.ckpt"), weights_only=True)
    net = Net()
    net.load_state_dict(values["state_dict"])
    inputs = torch.randn(5, 4)
    assert torch.allclose(model(inputs), net(inputs), atol=1e-6)
    again = litlab("register", run_id, "points")
    assert again.code == 0, again.err
    assert "already registered" in again.out


def test_classes_of_the_data_set_are_in_the_registered_model(litlab, fit, uri):
    run_id = fit("PictureForward", "PictureData")
    outcome = litlab("register", run_id, "pictures")
    assert outcome.code == 2
    assert "PictureForward.forward takes a list: only a model that maps one tensor" in outcome.err
    outcome = litlab("register", run_id, "pictures", "--input", "image")
    assert outcome.code == 0, outcome.err
    client = mlflow.MlflowClient(uri)
    (output,) = client.get_run(run_id).outputs.model_outputs
    folder = Path(urlparse(client.get_logged_model(output.model_id).artifact_location).path)
    assert mlflow.models.get_model_info(str(folder)).metadata == {"classes": ["left", "right"]}


def test_what_is_missing_to_register_a_model_is_said(litlab, fit):
    outcome = litlab("register", fit("TokenNet"), "tokens")
    assert outcome.code == 2
    assert "TokenNet.forward takes a tensor of shape (16, 4), a tensor of shape (16, 4): only a model" in outcome.err
    outcome = litlab("register", fit("PictureNet", "PictureData"), "pictures", "--input", "image")
    assert outcome.code == 2
    assert "PictureNet.forward fails on a tensor of shape (2, 1, 8, 8)" in outcome.err


def test_image_files_are_read_for_a_strangers_module_as_litlabs_data_were(litlab, tmp_path):
    fitted = litlab(
        *("fit", "digits-mlp", "--model", f"{STRANGERS}.DigitNet", "--trainer.max_epochs=3"),
        *("--trainer.accelerator=cpu", "--monitor=val_loss"),
    )
    assert fitted.code == 0, fitted.err
    images, labels = Digits().load(train=False)
    for index in range(20):
        Image.fromarray(images[index, 0].numpy()).save(tmp_path / f"{index}.png")
    outcome = litlab("predict", fitted.run_id, *(tmp_path / f"{index}.png" for index in range(20)))
    assert outcome.code == 0, outcome.err
    found = [row["class"] for row in rows_of(outcome.out)]
    assert sum(a == str(b) for a, b in zip(found, labels[:20].tolist(), strict=True)) >= 15

"""Runs on the data that people have: images with a table of labels, several labels each, tables of numbers."""

import csv
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image
from sklearn.datasets import load_diabetes

from datamodules.digits import Digits

pytestmark = pytest.mark.usefixtures("tables")


@pytest.fixture
def labels_file(tmp_path) -> Path:
    """60 scans of three digits, by ten writers, and their table."""
    pixels, labels = Digits().load(train=True)
    folder = tmp_path / "scans"
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "writer", "labels"])
        for name in ("0", "1", "7"):
            for index, scan in enumerate(pixels[labels == int(name)][:20, 0].numpy()):
                Image.fromarray(scan).save(folder / f"{name}-{index}.png")
                several = "round" if name == "0" else "stroke" if name == "1" else "stroke;seven"
                writer.writerow([f"{name}-{index}.png", f"digit {name}", f"w{index % 10}", several])
    return folder / "labels.csv"


def images(data: str, labels_file: Path) -> list[str]:
    options = ["--data.labels_file", str(labels_file), "--data.size", "24", "--data.batch_size", "16"]
    return ["backbone", "--data", data, *options, "--data.normalization", "unit", "--trainer.max_epochs", "2"]


def metrics_of(run_id: str, uri: str) -> dict[str, float]:
    metrics: dict[str, float] = MlflowClient(uri).get_run(run_id).data.metrics
    return metrics


def test_images_with_a_table_of_labels_are_trained_split_by_group_and_predicted(
    litlab, labels_file, tiny_network, tmp_path
):
    options = images("datamodules.image_csv.ImageCSV", labels_file)
    fitted = litlab("fit", *options, "--data.group_column", "writer", "--model.name", tiny_network)
    assert fitted.code == 0, fitted.err
    labels_file.rename(tmp_path / "gone.csv")  # a prediction needs neither the table nor the images
    predicted = litlab("predict", fitted.run_id, labels_file.parent / "7-0.png")
    assert predicted.code == 0, predicted.err
    assert predicted.out.splitlines()[1].split(",")[1] in ("digit 0", "digit 1", "digit 7")


def test_a_group_column_that_does_not_exist_is_one_line(litlab, labels_file, tiny_network):
    options = images("datamodules.image_csv.ImageCSV", labels_file)
    outcome = litlab("fit", *options, "--data.group_column", "patient", "--model.name", tiny_network)
    assert outcome.code == 2
    assert "labels.csv: has no column 'patient' (data.group_column); it has file, label, writer" in outcome.err


def test_images_with_several_labels_are_trained_selected_tested_and_predicted(litlab, labels_file, tiny_network, uri):
    options = images("datamodules.multilabel_csv.MultilabelCSV", labels_file)
    model = ["--model", "modules.multilabel_backbone.MultilabelBackbone", "--model.name", tiny_network]
    fitted = litlab("fit", *options, *model)
    assert fitted.code == 0, fitted.err
    metrics = metrics_of(fitted.run_id, uri)
    assert metrics.keys() >= {"test/map", "test/f1", "test/loss", "selected/val/map"}
    assert 0 < metrics["test/map"] <= 1
    tested = litlab("test", fitted.run_id)
    assert (tested.code, f"{metrics['test/map']:.4f}" in tested.out) == (0, True)
    predicted = litlab("predict", fitted.run_id)
    assert (predicted.code, len(predicted.out.splitlines())) == (0, 13), predicted.err  # 12 test images


def test_a_regression_of_the_bundled_data_explains_more_than_the_mean_and_has_a_figure(litlab, uri):
    fitted = litlab("fit", "diabetes-mlp")
    assert fitted.code == 0, fitted.err
    assert metrics_of(fitted.run_id, uri)["test/r2"] > 0.3
    artifacts = {file.path for file in MlflowClient(uri).list_artifacts(fitted.run_id, "figures")}
    assert "figures/estimates.png" in artifacts
    predicted = litlab("predict", fitted.run_id)
    assert predicted.out.splitlines()[0] == "index,target,prediction"


def test_a_table_of_ones_own_is_trained_with_several_targets_and_its_features_are_kept(litlab, tmp_path, uri):
    frame = load_diabetes(as_frame=True).frame
    frame.assign(double=2 * frame["target"]).to_parquet(tmp_path / "mine.parquet")
    data = ["--data", "datamodules.table.Table", "--data.file", str(tmp_path / "mine.parquet")]
    options = [*data, "--data.target", "[target, double]", "--trainer.max_epochs", "3"]
    fitted = litlab("fit", "diabetes-mlp", *options)
    assert fitted.code == 0, fitted.err
    frame.assign(double=2 * frame["target"], more=1.0).to_parquet(tmp_path / "mine.parquet")
    tested = litlab("test", fitted.run_id)  # the new column is no feature of this run
    assert tested.code == 0, tested.err
    assert f"{metrics_of(fitted.run_id, uri)['test/r2']:.4f}" in tested.out


def test_a_classifier_refuses_a_table_for_regression(litlab, tmp_path):
    pd.DataFrame({"x": [1.0, 2, 3, 4, 5, 6], "y": [1.0, 2, 3, 4, 5, 6]}).to_csv(tmp_path / "mine.csv", index=False)
    data = ["--data", "datamodules.table.Table", "--data.file", str(tmp_path / "mine.csv"), "--data.target", "y"]
    outcome = litlab("fit", "digits-mlp", *data)
    assert outcome.code == 2
    assert "needs data with classes" in outcome.err


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (
            ["--data.n_val", "1"],
            "the validation set has 1 example, but the metrics of MLPRegressor need 2: see data.n_val",
        ),
        (
            ["--data.n_test", "1"],
            "the test set has 1 example, but the metrics of MLPRegressor need 2: see data.n_test",
        ),
        (["--data.device", "cuda"], "data.device is cuda, but the training runs on cpu; use auto"),
    ],
)
def test_a_set_that_is_too_small_or_has_no_device_is_refused_before_there_is_a_run(litlab, args, told):
    outcome = litlab("fit", "diabetes-mlp", "--trainer.accelerator", "cpu", *args)
    assert (outcome.code, told in outcome.err) == (2, True), outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert litlab("runs").out.startswith("no runs in")

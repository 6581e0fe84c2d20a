"""Images with labels in a table: one class, several labels, groups, a test file of its own."""

import csv
from pathlib import Path

import pytest
import torch
from PIL import Image

from datamodules.digits import Digits
from datamodules.image_csv import ImageCSV
from datamodules.multilabel_csv import MultilabelCSV

SMALL = {"size": 8, "channels": 1}


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """60 scans of the digits 0, 1 and 7 by ten writers, of two sizes; labels.csv has their names and writers."""
    folder = tmp_path_factory.mktemp("scans")
    pixels, labels = Digits().load(train=True)
    rows = []
    for name in ("0", "1", "7"):
        for index, scan in enumerate(pixels[labels == int(name)][:20, 0].numpy()):
            image = Image.fromarray(scan).resize((20, 24) if index % 2 else (16, 16))
            image.save(folder / f"{name}-{index:02}.png")
            labels_of = ";".join(["round"] * (name == "0") + ["stroke"] * (name != "0") + ["seven"] * (name == "7"))
            rows.append((f"{name}-{index:02}.png", f"0{name}", f"writer {index % 10}", labels_of))
    write(folder / "labels.csv", rows)
    return folder


def write(path: Path, rows: list[tuple[str, ...]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "label", "writer", "labels"), *rows])
    return path


def rows_of(scans: Path) -> list[tuple[str, ...]]:
    with (scans / "labels.csv").open(encoding="utf-8") as file:
        return [tuple(row) for row in csv.reader(file)][1:]


def loaded(data):
    data.setup("fit")
    data.setup("test")
    return data


def test_classes_are_the_texts_of_the_column_and_the_sets_are_stratified(scans):
    data = loaded(ImageCSV(str(scans / "labels.csv"), **SMALL))
    assert data.classes == ("00", "01", "07")
    assert data.sizes() == {"train": 44, "val": 4, "test": 12}
    assert torch.bincount(data.test_set.targets).tolist() == [4, 4, 4]
    pixels = [*data.train_set.inputs, *data.val_set.inputs, *data.test_set.inputs]
    assert len({tuple(image.flatten().tolist()) for image in pixels}) == 60


def test_the_table_may_be_parquet_and_the_images_elsewhere(scans, tmp_path):
    import pandas as pd

    table = pd.read_csv(scans / "labels.csv", dtype=str, keep_default_na=False)
    table.to_parquet(tmp_path / "labels.parquet")
    data = loaded(ImageCSV(str(tmp_path / "labels.parquet"), data_dir=str(scans), **SMALL))
    other = loaded(ImageCSV(str(scans / "labels.csv"), **SMALL))
    assert data.describe()["sha256"] == other.describe()["sha256"]


def test_no_group_is_in_two_sets(scans):
    data = loaded(ImageCSV(str(scans / "labels.csv"), group_column="writer", n_val=12, n_test=12, **SMALL))
    writers = {file: writer for file, _, writer, _ in rows_of(scans)}
    images = {tuple(read(scans / file)): writer for file, writer in writers.items()}
    sets = [{images[tuple(image.flatten().tolist())] for image in part.inputs} for part in parts_of(data)]
    assert all(sets)
    assert sum(map(len, sets)) == len(set.union(*sets)) == 10
    assert len(data.train_groups_N) == len(data.train_set) + len(data.val_set)


def parts_of(data):
    return data.train_set, data.val_set, data.test_set


def read(path: Path) -> list[int]:
    from datamodules.images import read_image

    return read_image(path, (1, 8, 8)).flatten().tolist()


def test_a_test_file_is_the_complete_test_set_and_shares_no_group_with_training(scans, tmp_path):
    rows = rows_of(scans)
    by_writer = [[row for row in rows if (row[2] == "writer 9") is held_out] for held_out in (False, True)]
    train, test = write(tmp_path / "train.csv", by_writer[0]), write(tmp_path / "test.csv", by_writer[1])
    options = {"data_dir": str(scans), "test_file": str(test), "group_column": "writer", **SMALL}
    data = loaded(ImageCSV(str(train), **options))
    assert data.sizes()["test"] == 6
    write(train, rows[1:])
    with pytest.raises(ValueError, match=r"test\.csv: writer 9 of column 'writer' is in .*train\.csv too"):
        ImageCSV(str(train), **options).setup("fit")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda rows: rows, {"label_column": "class"}, r"no column 'class' \(data.label_column\); it has file, label"),
        (lambda rows: rows, {"file_column": "path"}, r"no column 'path' \(data.file_column\)"),
        (lambda rows: rows, {"group_column": "patient"}, r"no column 'patient' \(data.group_column\)"),
        (lambda rows: rows, {"class_names": ["00", "01"]}, r"'07' in column 'label' is not one of the classes 00, 01"),
        (lambda rows: [*rows, rows[0]], {}, r"0-00.png has two rows"),
        (lambda rows: [*rows, ("x.png", "", "w", "")], {}, r"column 'label' has no value in line 62"),
        (lambda rows: [*rows, ("x.png", "00", "", "")], {"group_column": "writer"}, r"column 'writer' has no value"),
        (lambda rows: [(f, x, "one", z) for f, x, _, z in rows], {"group_column": "writer"}, r"'writer' has 1 group"),
        (lambda rows: [(f, x, x, z) for f, x, _, z in rows], {"group_column": "writer"}, r"leaves class \d without"),
        (lambda rows: [], {}, "the table has no rows"),
    ],
)
def test_a_wrong_table_is_named_with_its_column(scans, tmp_path, change, options, message):
    file = write(tmp_path / "wrong.csv", change(rows_of(scans)))
    with pytest.raises(ValueError, match=rf"wrong\.csv: .*{message}"):
        ImageCSV(str(file), data_dir=str(scans), **options, **SMALL).setup("fit")


def test_a_missing_image_and_a_missing_table_are_named(scans, tmp_path):
    file = write(tmp_path / "more.csv", [*rows_of(scans), ("none.png", "00", "w", "")])
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        ImageCSV(str(file), data_dir=str(scans), **SMALL).setup("fit")
    with pytest.raises(FileNotFoundError, match=r"none\.csv: no such file"):
        ImageCSV(str(tmp_path / "none.csv"))
    with pytest.raises(ValueError, match=r"it must be|suffix must be one of"):
        ImageCSV(str(scans / "0-00.png"))


def test_an_image_has_any_number_of_labels(scans):
    data = loaded(MultilabelCSV(str(scans / "labels.csv"), **SMALL))
    assert data.classes == ("round", "seven", "stroke")
    counts = sum(part.targets.sum(0) for part in parts_of(data))
    assert counts.tolist() == [20, 20, 40]
    assert data.test_set.targets.sum(0).tolist() == [4, 4, 8]  # stratified by the rarest label
    assert {tuple(row) for row in data.train_set.targets.tolist()} == {(1, 0, 0), (0, 0, 1), (0, 1, 1)}


def test_labels_may_be_columns_of_0_and_1(scans, tmp_path):
    rows = [(file, "1", "0" if index % 2 else "1", "") for index, (file, *_) in enumerate(rows_of(scans))]
    file = write(tmp_path / "columns.csv", rows)
    options = {"data_dir": str(scans), "label_columns": ["label", "writer"], **SMALL}
    data = loaded(MultilabelCSV(str(file), **options))
    assert data.classes == ("label", "writer")
    assert sum(part.targets.sum(0) for part in parts_of(data)).tolist() == [60, 30]
    write(file, [*rows[:-1], (rows[-1][0], "1", "2", "")])
    with pytest.raises(ValueError, match=r"columns\.csv: column 'writer' \(data.label_columns\) has other values"):
        MultilabelCSV(str(file), **options).setup("fit")

"""Tables for regression: features, targets, groups, a test file of its own, scikit-learn's diabetes data."""

import pandas as pd
import pytest
import torch

from datamodules.diabetes import Diabetes
from datamodules.table import Table


@pytest.fixture
def frame() -> pd.DataFrame:
    """100 rows by ten patients, with a column of texts and two of targets."""
    count = torch.arange(100)
    columns = {"dose": count * 2.0, "age": (count % 37).double(), "y": count * 1.0, "z": -count * 1.0}
    texts = {"name": [f"n{number}" for number in count.tolist()], "patient": (count % 10).tolist()}
    return pd.DataFrame({**{name: values.tolist() for name, values in columns.items()}, **texts})


def loaded(data):
    data.setup("fit")
    data.setup("test")
    return data


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_features_are_the_columns_of_numbers(frame, tmp_path, suffix):
    file = tmp_path / f"table.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(file)
    else:
        frame.to_csv(file, sep="," if suffix == "csv" else "\t", index=False)
    data = loaded(Table(str(file), target="y", group_column="patient"))
    assert data.feature_names == ("dose", "age", "z")
    assert (data.input_shape, data.num_targets) == ((3,), 1)
    torch.testing.assert_close(data.train_set.inputs[:, 0], 2 * data.train_set.targets[:, 0])
    patients = [
        set((part.targets[:, 0].long() % 10).tolist()) for part in (data.train_set, data.val_set, data.test_set)
    ]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 10


def test_features_are_standardised_on_the_training_rows_and_targets_are_not(frame, tmp_path):
    frame.to_csv(tmp_path / "table.csv", index=False)
    data = loaded(Table(str(tmp_path / "table.csv"), target=["y", "z"], features=["dose"]))
    features, targets = data.on_after_batch_transfer((data.train_set.inputs, data.train_set.targets), 0)
    assert features.mean().item() == pytest.approx(0, abs=1e-6)
    assert features.std(correction=0).item() == pytest.approx(1)
    assert torch.equal(targets, data.train_set.targets)
    again = Table(str(tmp_path / "table.csv"), target=["y", "z"], features=["dose"])
    again.load_state_dict(data.state_dict())
    torch.testing.assert_close(again.on_after_batch_transfer((data.train_set.inputs, targets), 0)[0], features)


def test_a_test_file_is_the_complete_test_set_and_shares_no_group(frame, tmp_path):
    held_out = frame["patient"] == 3
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    frame[~held_out].to_csv(train, index=False)
    frame[held_out].to_csv(test, index=False)
    options = {"target": "y", "test_file": str(test), "group_column": "patient"}
    assert loaded(Table(str(train), **options)).sizes()["test"] == 10
    frame.to_csv(train, index=False)
    with pytest.raises(ValueError, match=r"test\.csv: 3 of column 'patient' is in .*train\.csv too"):
        Table(str(train), **options).setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "weight"}, r"no column 'weight' \(data.target\); it has dose, age"),
        ({"target": "y", "features": ["dose", "height"]}, r"no column 'height' \(data.features\)"),
        ({"target": "y", "features": ["name"]}, r"column 'name' has 'n0' in line 2, which is no number"),
        ({"target": "y", "group_column": "ward"}, r"no column 'ward' \(data.group_column\)"),
        ({"target": "y", "features": ["y"]}, r"data.features must name at least one column, and none of data.target"),
    ],
)
def test_a_wrong_column_is_named(frame, tmp_path, options, message):
    frame.to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(ValueError, match=message):
        Table(str(tmp_path / "table.csv"), **options).setup("fit")


def test_the_diabetes_data_have_442_patients_and_a_fixed_test_set():
    data, other = loaded(Diabetes()), loaded(Diabetes(split_seed=1))
    assert data.sizes() == {"train": 319, "val": 35, "test": 88}
    targets = torch.cat([data.train_set.targets, data.val_set.targets, data.test_set.targets])
    assert (targets.min().item(), targets.max().item()) == (25, 346)
    assert data.test_set.digest() == other.test_set.digest()
    assert data.val_set.digest() != other.val_set.digest()


def test_a_table_is_read_once_for_its_features_and_once_for_all_sets(frame, tmp_path):
    file = tmp_path / "table.csv"
    frame.to_csv(file, index=False)
    data = Table(str(file), target="y")
    frame.drop(columns="age").to_csv(file, index=False)
    assert data.derived_arguments() == {"features": ["dose", "age", "z", "patient"]}, "as when it was created"
    frame.to_csv(file, index=False)
    data.setup("fit")
    file.unlink()
    data.setup("test")
    assert len(data.train_set) + len(data.val_set) + len(data.test_set) == len(frame)

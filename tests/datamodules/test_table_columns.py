"""Columns of a table: numbers are features, texts are not, and a mixed column is no silent loss of a feature."""

import pytest
import torch

from datamodules.diabetes import Diabetes
from datamodules.table import Table


@pytest.mark.parametrize("cell", ["", "x"])
def test_a_column_of_numbers_with_another_value_is_refused_with_its_line(cell, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(f"a,b,kind,price\n1,2,red,3\n2,{cell},blue,4\n3,1,red,5\n4,1,red,6\n")
    with pytest.raises(ValueError, match=r"column 'b' has '.*' in line 3.*data\.features"):
        Table(str(path), target="price")
    assert Table(str(path), target="price", features=["a"]).feature_names == ("a",)


def test_columns_of_texts_are_no_features(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,kind,price\n1,red,3\n2,blue,4\n3,7,5\n")
    assert Table(str(path), target="price").feature_names == ("a",)


def test_the_statistics_stay_on_the_cpu_after_a_batch_on_another_device():
    data = Diabetes()
    data.setup("fit")
    found, _ = data.on_after_batch_transfer((torch.empty(2, 10, device="meta"), torch.empty(2, 1)), 0)
    assert found.device.type == "meta"
    assert {value.device.type for value in data.state_dict().values()} == {"cpu"}
    assert data.normalize.mean_D.device.type == "cpu"

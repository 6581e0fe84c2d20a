"""Columns of a table: numbers are features, texts are not, and a mixed column is no silent loss of a feature."""

import pytest

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

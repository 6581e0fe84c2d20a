"""User-provided tables for regression."""

from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch

from datamodules.table_file import (
    group_numbers,
    numbers,
    numeric_columns,
    read_table,
    require_columns,
    require_other_groups,
    texts,
)
from datamodules.tabular import Rows, TabularDataModule


@final
class Table(TabularDataModule):
    """Rows of a CSV or Parquet file: some columns are features, others are targets. All must be numbers.

    Args:
        file: The table.
        target: Column of the target, or several.
        features: Columns of the features; by default all that only have numbers, except for targets and groups. They
            are saved with the run.
        test_file: Table of the test rows, which are used for the test only.
        group_column: Column of groups, such as patients. No group is in two of the three sets, whose sizes are then
            approximate.
        **options: Splits and batch size, see `TabularDataModule`.

    Raises:
        FileNotFoundError: The table does not exist.
        ValueError: A column is missing, or a value in it. The message names file, column and row.
    """

    def __init__(
        self,
        file: str,
        target: str | list[str],
        features: list[str] | None = None,
        test_file: str | None = None,
        group_column: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.file, self.group_column = Path(file).expanduser(), group_column
        self.test_file = Path(test_file).expanduser() if test_file else None
        if self.test_file is not None and self.n_test is not None:
            raise ValueError(f"data.n_test is {self.n_test}, but {test_file} has the complete test set")
        self.target_names = (target,) if isinstance(target, str) else tuple(target)
        if not self.target_names:
            raise ValueError("data.target is empty; it must name a column")
        self.feature_names = tuple(features) if features is not None else tuple(self._found_features)
        if not self.feature_names or {*self.feature_names} & {*self.target_names}:
            raise ValueError("data.features must name at least one column, and none of data.target")
        self.input_shape = (len(self.feature_names),)

    @cached_property
    def _found_features(self) -> list[str]:
        table = self._read(self.file)
        others = {*self.target_names, self.group_column}
        return numeric_columns(self.file, table[[name for name in table.columns if name not in others]])

    def derived_arguments(self) -> dict[str, Any]:
        return {"features": list(self._found_features)} if self.file.is_file() else {}

    def load(self) -> Rows:
        return self._rows(self.file)

    def load_test(self) -> Rows | None:
        if self.test_file is None:
            return None
        if self.group_column is not None:
            groups, tested = (texts(path, self._read(path), self.group_column) for path in (self.file, self.test_file))
            require_other_groups(self.group_column, self.file, groups, self.test_file, tested)
        return self._rows(self.test_file)

    def _rows(self, path: Path) -> Rows:
        table = self._read(path)
        for name in self.feature_names:
            require_columns(path, table, features=name)
        features_ND = torch.from_numpy(numbers(path, table, self.feature_names)).float()
        targets_NK = torch.from_numpy(numbers(path, table, self.target_names)).float()
        groups_N = group_numbers(texts(path, table, self.group_column)) if self.group_column else None
        return Rows(features_ND, targets_NK, groups_N)

    def _read(self, path: Path) -> Any:
        table = read_table(path)
        for name in self.target_names:
            require_columns(path, table, target=name)
        if self.group_column is not None:
            require_columns(path, table, group_column=self.group_column)
        return table

    def describe(self) -> dict[str, Any]:
        """Return the description of the data, and their file."""
        return {**super().describe(), "file": str(self.file.resolve())}

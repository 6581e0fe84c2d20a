"""User-provided images, with any number of labels of each in a table.

Shapes: N images, K labels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from datamodules.image_table import ImageTableDataModule
from datamodules.table_file import numbers, require_columns


@final
class MultilabelCSV(ImageTableDataModule):
    """Images with any number of labels each, also none, from a CSV or Parquet file.

    The labels of an image are in one column, separated, or there is a column of 0 and 1 for each label. Splits keep the
    proportions of each image's rarest label.

    Args:
        labels_file: The table: one row for each image.
        label_column: Column with the labels of each image, separated by `separator`.
        separator: What separates the labels of an image.
        label_columns: Names of the columns of 0 and 1, which replace `label_column`.
        **options: Folder, columns, splits and images, see `ImageTableDataModule`.
    """

    def __init__(
        self,
        labels_file: str,
        label_column: str = "labels",
        separator: str = ";",
        label_columns: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(labels_file, **options)
        if not separator:
            raise ValueError("data.separator is empty; it must be a character such as ;")
        self.label_column, self.separator, self.label_columns = label_column, separator, label_columns
        self.set_classes()

    def find_classes(self, path: Path, table: Any) -> list[str]:
        if self.label_columns is not None:
            return list(self.label_columns)
        return sorted({label for labels in self._labels(path, table) for label in labels})

    def read_targets(self, path: Path, table: Any) -> Tensor:
        """Return 0 or 1 for each image and label, int64, shape (N, K)."""
        if self.label_columns is not None:
            return self._read_columns(path, table)
        targets_NK = torch.zeros(len(table), len(self.classes), dtype=torch.int64)
        for row, labels in enumerate(self._labels(path, table)):
            if unknown := sorted({*labels} - {*self.classes}):
                raise ValueError(
                    f"{path}: {unknown[0]!r} in column {self.label_column!r} is not one of {', '.join(self.classes)}"
                )
            targets_NK[row, [self.classes.index(label) for label in labels]] = 1
        return targets_NK

    def _read_columns(self, path: Path, table: Any) -> Tensor:
        for column in self.classes:
            require_columns(path, table, label_columns=column)
        targets_NK = torch.from_numpy(numbers(path, table, self.classes))
        for column, values_N in zip(self.classes, targets_NK.T, strict=True):
            if not ((values_N == 0) | (values_N == 1)).all():
                raise ValueError(f"{path}: column {column!r} (data.label_columns) has other values than 0 and 1")
        return targets_NK.to(torch.int64)

    def _labels(self, path: Path, table: Any) -> list[list[str]]:
        require_columns(path, table, label_column=self.label_column)
        cells = table[self.label_column].fillna("").astype(str)
        return [[label.strip() for label in cell.split(self.separator) if label.strip()] for cell in cells]

    def strata(self, targets: Tensor) -> Tensor:
        """Return the rarest label of each image, K for none; those of fewer than ten images count as the commonest."""
        counts_K = targets.sum(0)
        rarity_NK = torch.where(targets == 1, counts_K, len(targets) + 1)
        strata_N = rarity_NK.argmin(1).where(targets.any(1), targets.shape[1])
        sizes = torch.bincount(strata_N, minlength=targets.shape[1] + 1)
        return torch.where(sizes[strata_N] < 10, sizes.argmax(), strata_N)

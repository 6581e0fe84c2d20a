"""User-provided images, with the class of each in a table."""

from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from datamodules.image_table import ImageTableDataModule
from datamodules.table_file import require_columns, texts


@final
class ImageCSV(ImageTableDataModule):
    """Images with one class each, from a CSV or Parquet file with a column of files and a column of labels.

    Args:
        labels_file: The table: one row for each image.
        label_column: Column with the class of each image.
        **options: Folder, columns, splits and images, see `ImageTableDataModule`.
    """

    def __init__(self, labels_file: str, label_column: str = "label", **options: Any) -> None:
        super().__init__(labels_file, **options)
        self.label_column = label_column
        self.set_classes()

    def find_classes(self, path: Path, table: Any) -> list[str]:
        require_columns(path, table, label_column=self.label_column)
        return sorted({*texts(path, table, self.label_column)})

    def read_targets(self, path: Path, table: Any) -> Tensor:
        require_columns(path, table, label_column=self.label_column)
        labels = texts(path, table, self.label_column)
        if unknown := sorted({*labels} - {*self.classes}):
            raise ValueError(
                f"{path}: {unknown[0]!r} in column {self.label_column!r} is not one of the classes "
                f"{', '.join(self.classes)}"
            )
        return torch.tensor([self.classes.index(label) for label in labels])

    def strata(self, targets: Tensor) -> Tensor:
        return targets

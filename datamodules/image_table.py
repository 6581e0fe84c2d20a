"""Abstract data module of images whose labels are in a table."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.base import ImageDataModule, image_shape
from datamodules.folds import Fold
from datamodules.image_cache import DECODER_VERSION, load_images
from datamodules.in_memory import require_positive
from datamodules.split import TEST_DIVISOR, TEST_SEED, VAL_DIVISOR, group_split, stratified_split
from datamodules.table_file import group_numbers, read_table, require_columns, require_other_groups, texts


class ImageTableDataModule(ImageDataModule):
    """Base class of images of any size, resized to one size and held in memory, with labels in a CSV or Parquet file.

    Args:
        labels_file: The table: one row for each image.
        data_dir: Folder of the images, to which the paths in the table are relative; by default that of the table.
        test_file: Table of the test images, which are used for the test only. Without it, 1/5 of the images are the
            test set, the same in all runs.
        file_column: Column with the path of each image.
        group_column: Column of groups, such as patients or writers. No group is in two of the three sets; their sizes
            are then approximate.
        size: Rows and columns of the model's input images; one number for square images.
        channels: 3 for RGB, 1 for greyscale.
        class_names: Classes in the order of the labels; by default those of the table. They are saved with the run.
        n_val: Number of validation examples; 1/10 of the training images by default.
        n_test: Number of test examples; not allowed with `test_file`.
        **options: Subset, batch size, normalisation and augmentation, see `ImageDataModule`.

    Raises:
        FileNotFoundError: The table does not exist.
        ValueError: A column is missing, or a value in it. The message names file, column and row.
    """

    def __init__(
        self,
        labels_file: str,
        data_dir: str | None = None,
        test_file: str | None = None,
        file_column: str = "file",
        group_column: str | None = None,
        size: int | tuple[int, int] = 64,
        channels: Literal[1, 3] = 3,
        class_names: list[str] | None = None,
        n_val: int | None = None,
        n_test: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(n_val=1 if n_val is None else n_val, **options)  # the default is computed from the images
        require_positive(n_test=n_test)
        if test_file and n_test is not None:
            raise ValueError(f"data.n_test is {n_test}, but {test_file} has the complete test set")
        self.input_shape = image_shape(channels, size)
        self.labels_file = Path(labels_file).expanduser()
        self.data_dir = Path(data_dir).expanduser() if data_dir else self.labels_file.parent
        self.test_file = Path(test_file).expanduser() if test_file else None
        self.file_column, self.group_column = file_column, group_column
        self._n_val, self._n_test, self._class_names = n_val, n_test, class_names

    @abstractmethod
    def find_classes(self, path: Path, table: Any) -> list[str]:
        """Return the classes of a table, sorted."""

    @abstractmethod
    def read_targets(self, path: Path, table: Any) -> Tensor:
        """Return the target of each row; the first axis is N.

        Raises:
            ValueError: A label is not one of `classes`. The message names file, column and row.
        """

    @abstractmethod
    def strata(self, targets: Tensor) -> Tensor:
        """Return a number for each example, whose proportions are kept by splits; shape (N,)."""

    def set_classes(self) -> None:
        """Set `classes` to those that are given, or else to those of the table; called once, by `__init__`."""
        if self._class_names is not None:
            self.classes = tuple(self._class_names)
        else:
            self.classes = tuple(self.find_classes(self.labels_file, self._read_table(self.labels_file)))
        if len(self.classes) != len(set(self.classes)):
            raise ValueError("data.class_names: a class is given twice")

    def derived_arguments(self) -> dict[str, Any]:
        if not self.labels_file.is_file():
            return {}
        return {"class_names": self.find_classes(self.labels_file, self._read_table(self.labels_file))}

    def load(self, *, train: bool) -> tuple[Tensor, Tensor]:
        """Load the images and targets of the training and validation set, or of the test set."""
        table = self._read_table(self.labels_file)
        targets, groups = self.read_targets(self.labels_file, table), self._groups(self.labels_file, table)
        if self.test_file is not None:
            test_table = self._read_table(self.test_file)
            if groups is not None and self.group_column is not None:
                tested = texts(self.test_file, test_table, self.group_column)
                require_other_groups(self.group_column, self.labels_file, groups, self.test_file, tested)
            self.train_groups_N = None if groups is None else group_numbers(groups)
            path, chosen = (self.labels_file, table) if train else (self.test_file, test_table)
            return self._read_images(path, chosen), targets if train else self.read_targets(path, test_table)
        numbers_N = None if groups is None else group_numbers(groups)
        n_test = self._n_test or max(self._num_strata(targets), len(targets) // TEST_DIVISOR)
        rest, test = self._split_off(targets, numbers_N, n_test, TEST_SEED, "test")
        self.train_groups_N = None if numbers_N is None else numbers_N[rest]
        indices = rest if train else test
        return self._read_images(self.labels_file, table).index_select(0, indices), targets[indices]

    def split(self, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        n_val = self._n_val or max(self._num_strata(labels_N), len(labels_N) // VAL_DIVISOR)
        train, val = self._split_off(labels_N, self.train_groups_N, n_val, self.split_seed, "validation")
        if self.n_train is None or self.n_train == len(train):
            return train, val
        if not len(self.classes) <= self.n_train < len(train):
            raise ValueError(f"data.n_train is {self.n_train}; it must be {len(self.classes)} to {len(train)}")
        return self._limit_training(train, self.strata(labels_N)), val

    def split_fold(self, labels_N: Tensor, fold: Fold) -> tuple[Tensor, Tensor]:
        if self._n_val is not None:
            raise ValueError(f"data.folds is {fold.folds}, which makes the validation sets; leave out data.n_val")
        strata_N = self.strata(labels_N)
        train, val = fold.split(len(labels_N), strata_N=strata_N, groups_N=self.train_groups_N)
        return self._limit_training(train, strata_N), val

    def _num_strata(self, targets: Tensor) -> int:
        return len(torch.unique(self.strata(targets)))

    def _split_off(
        self, targets: Tensor, groups_N: Tensor | None, count: int, seed: int, name: str
    ) -> tuple[Tensor, Tensor]:
        """Return the indices that remain, and those of a set of about `count` examples."""
        try:
            strata_N = self.strata(targets)
            if groups_N is not None:
                assert self.group_column is not None
                return group_split(groups_N, n_val=count, seed=seed, column=self.group_column, labels_N=strata_N)
            return stratified_split(strata_N, n_val=count, n_train=None, seed=seed)
        except ValueError as error:
            raise ValueError(f"{self.labels_file}: cannot split off {count} {name} images: {error}") from error

    def _read_table(self, path: Path) -> Any:
        table, columns = read_table(path), {"file_column": self.file_column}
        require_columns(path, table, **columns | ({"group_column": self.group_column} if self.group_column else {}))
        return table

    def _groups(self, path: Path, table: Any) -> list[str] | None:
        return None if self.group_column is None else texts(path, table, self.group_column)

    def _read_images(self, path: Path, table: Any) -> Tensor:
        names = texts(path, table, self.file_column)
        if repeated := sorted(name for name, count in _counts(names).items() if count > 1):
            raise ValueError(f"{path}: {repeated[0]} has two rows; it could be in training and test set")
        return load_images(self.data_dir, names, self.input_shape, resize=True)

    def describe(self) -> dict[str, Any]:
        """Return the description of the data, its table and its classes, and the version of the reader of images."""
        own = {"labels_file": str(self.labels_file.resolve()), "classes": list(self.classes), "reader": DECODER_VERSION}
        return {**super().describe(), **own}


def _counts(names: list[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts

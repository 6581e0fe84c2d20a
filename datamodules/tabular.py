"""Abstract data module of tables for regression.

Shapes: N examples of a set, B batch size, D features, K targets.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.folds import Fold
from datamodules.in_memory import InMemoryDataModule, require_positive
from datamodules.sets import Batch, TensorSet
from datamodules.split import TEST_DIVISOR, TEST_SEED, VAL_DIVISOR, group_split, random_split


@dataclass(frozen=True)
class Rows:
    """Rows of a table.

    Attributes:
        features_ND: float32.
        targets_NK: float32.
        groups_N: Number of each row's group, or None.
    """

    features_ND: Tensor
    targets_NK: Tensor
    groups_N: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets_NK)

    def select(self, indices: Tensor) -> "Rows":
        groups_N = None if self.groups_N is None else self.groups_N[indices]
        return Rows(self.features_ND[indices], self.targets_NK[indices], groups_N)


class Standardize(nn.Module):
    """Subtract a mean from each feature and divide by a standard deviation."""

    mean_D: Tensor
    std_D: Tensor

    def __init__(self, mean_D: Tensor, std_D: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean_D", mean_D)
        self.register_buffer("std_D", std_D)

    def forward(self, features_BD: Tensor) -> Tensor:
        return (features_BD - self.mean_D) / self.std_D


class TabularDataModule(InMemoryDataModule):
    """Base class of tables with numbers as features and targets.

    Features are standardised with the statistics of the training rows; targets keep their unit. The sets are drawn at
    random, or by group, such that no group is in two of them.

    Args:
        n_val: Number of validation rows; 1/10 of the training rows by default.
        n_test: Number of test rows, the same in all runs; 1/5 of all rows by default.
        n_train: Number of training rows; None takes all that remain.
        split_seed: Seed that selects the validation rows, the folds and the training subset.
        folds: Number of folds, for cross-validation: each training row validates in one of them.
        fold: Index of the fold that validates; see `ImageDataModule`.
        **loading: Batch size and training-set evaluation, see `InMemoryDataModule`.
    """

    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]
    group_column: str | None = None

    def __init__(
        self,
        *,
        n_val: int | None = None,
        n_test: int | None = None,
        n_train: int | None = None,
        split_seed: int = 0,
        folds: int | None = None,
        fold: int | None = None,
        **loading: Any,
    ) -> None:
        super().__init__(**loading)
        require_positive(n_val=n_val, n_test=n_test, n_train=n_train)
        self.n_val, self.n_test, self.n_train, self.split_seed = n_val, n_test, n_train, split_seed
        self.fold = Fold.of(folds, fold, split_seed)
        self._parts: tuple[Rows, Rows] | None = None
        if self.fold is not None and n_val is not None:
            raise ValueError(f"data.folds is {folds}, which makes the validation sets; leave out data.n_val")

    @property
    def num_targets(self) -> int:
        return len(self.target_names)

    @abstractmethod
    def load(self) -> Rows:
        """Load all rows that are not in a test set of their own.

        Raises:
            ValueError, FileNotFoundError: A file is damaged or missing. The message names it.
        """

    def load_test(self) -> Rows | None:
        """Load the test rows, if they are in a file of their own."""
        return None

    def setup(self, stage: str) -> None:
        if stage in ("fit", "validate") and "train_set" not in vars(self):
            rows = self._remaining_and_test()[0]
            train, val = self._split(rows)
            self.train_set, self.val_set = _as_set(rows.select(train)), _as_set(rows.select(val))
            self.train_groups_N = rows.groups_N
            self.folded_set = None if self.fold is None else _as_set(rows)
            self.normalize = self.normalize or _fit(self.train_set.inputs)
        if stage == "test" and "test_set" not in vars(self):
            self.test_set = _as_set(self._remaining_and_test()[1])
        if {"train_set", "test_set"} <= vars(self).keys():
            self._parts = None  # the sets have copies of them

    def _remaining_and_test(self) -> tuple[Rows, Rows]:
        """Return the rows for training and validation, and those for the test, which are read once for both."""
        if self._parts is None:
            self._parts = self._load_parts()
        return self._parts

    def _load_parts(self) -> tuple[Rows, Rows]:
        rows, test_rows = self.load(), self.load_test()
        if test_rows is not None:
            return rows, test_rows
        rest, test = self._split_off(rows, self.n_test or max(1, len(rows) // TEST_DIVISOR), TEST_SEED)
        return rows.select(rest), rows.select(test)

    def _split(self, rows: Rows) -> tuple[Tensor, Tensor]:
        if self.fold is not None:
            train, val = self.fold.split(len(rows), strata_N=None, groups_N=rows.groups_N)
        else:
            train, val = self._split_off(rows, self.n_val or max(1, len(rows) // VAL_DIVISOR), self.split_seed)
        if self.n_train is None:
            return train, val
        if self.n_train > len(train):
            raise ValueError(f"data.n_train is {self.n_train}; it must be at most {len(train)}")
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(self.split_seed))
        return train[order[: self.n_train].sort().values], val

    def _split_off(self, rows: Rows, count: int, seed: int) -> tuple[Tensor, Tensor]:
        if rows.groups_N is None:
            return random_split(len(rows), n_val=count, seed=seed)
        assert self.group_column is not None
        return group_split(rows.groups_N, n_val=count, seed=seed, column=self.group_column)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Standardise the features of a batch, on its device."""
        features_BD, *rest = batch
        return self.normalized(features_BD), *rest

    def state_dict(self) -> dict[str, Any]:
        """Return the statistics of the features. Saved in checkpoints, so that inference needs no training data."""
        assert isinstance(self.normalize, Standardize)
        return {"mean": self.normalize.mean_D, "std": self.normalize.std_D}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.normalize = Standardize(state_dict["mean"], state_dict["std"])

    def describe(self) -> dict[str, Any]:
        """Return the description of the data, and the names of features and targets."""
        return {**super().describe(), "features": list(self.feature_names), "targets": list(self.target_names)}


def _as_set(rows: Rows) -> TensorSet:
    return TensorSet(rows.features_ND, rows.targets_NK)


def _fit(features_ND: Tensor) -> Standardize:
    """Return the standardisation of some rows; a constant feature becomes 0."""
    std_D = features_ND.std(0, correction=0)
    return Standardize(features_ND.mean(0), torch.where(std_D > 0, std_D, 1))

"""Cross-validation: folds that are stratified, by group, or at random.

Shapes: N examples.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.split import Subset, choose_subset, group_folds


@dataclass(frozen=True)
class Fold:
    """One of several folds, each of which validates once.

    Attributes:
        folds: Number of folds.
        fold: Index of the one that validates, from 0.
        seed: Random seed of the folds.

    Raises:
        ValueError: There are fewer than two folds, or the one is none of them.
    """

    folds: int
    fold: int
    seed: int

    def __post_init__(self) -> None:
        if not (self.folds > 1 and 0 <= self.fold < self.folds):
            raise ValueError(
                f"data.fold is {self.fold} of data.folds {self.folds}; expected at least 2 folds, numbered from 0"
            )

    @classmethod
    def of(cls, folds: int | None, fold: int | None, seed: int) -> "Fold | None":
        """Return the fold that arguments of a data module describe; None without folds. A `fold` of None is the first.

        Raises:
            ValueError: See `Fold`; or there is a fold, but not their number.
        """
        if folds is None and fold is not None:
            raise ValueError(f"data.fold is {fold}, but data.folds, their number, is not given")
        return None if folds is None else cls(folds, fold or 0, seed)

    def split(self, size: int, *, strata_N: Tensor | None, groups_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the training and validation indices of `size` examples. Each validates in exactly one fold.

        Args:
            size: N.
            strata_N: Number of each example's class, whose proportions the folds keep; None for a random split.
            groups_N: Number of each example's group; no group is in two folds.

        Raises:
            ValueError: There are fewer examples of a class, or fewer groups, than folds.
        """
        from sklearn.model_selection import KFold, StratifiedKFold

        if groups_N is not None:
            self._require(len(torch.unique(groups_N)), "there are only {} groups")
            return group_folds(groups_N, num_folds=self.folds, seed=self.seed, labels_N=strata_N)[self.fold]
        if strata_N is None:
            self._require(size, "there are only {} examples")
        else:
            fewest = int(torch.unique(strata_N, return_counts=True)[1].min())
            self._require(fewest, "a class has only {} examples")
        splitter = (KFold if strata_N is None else StratifiedKFold)(self.folds, shuffle=True, random_state=self.seed)
        train, val = [*splitter.split(range(size), strata_N)][self.fold]
        return torch.from_numpy(train), torch.from_numpy(val)

    def _require(self, count: int, message: str) -> None:
        if count < self.folds:
            raise ValueError(f"data.folds is {self.folds}, but {message.format(count)}")


def limit_training(
    train: Tensor, strata_N: Tensor, n_train: int | None, seed: int, subset: Subset = "stratified"
) -> Tensor:
    """Return `n_train` of the training indices, see `choose_subset`; all of them for None."""
    if n_train is None or n_train >= len(train):
        return train
    return torch.tensor(sorted(choose_subset(train.tolist(), strata_N.numpy(), n_train, seed, subset)))

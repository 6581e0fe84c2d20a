"""Splits into training and validation examples: stratified, at random, and by group.

Shapes: N examples.
"""

from typing import Any, Literal

import torch
from torch import Tensor

Subset = Literal["stratified", "random"]

TEST_SEED = 0  # a constant rather than a parameter, so that all runs have the same test set
TEST_DIVISOR, VAL_DIVISOR = 5, 10  # by default, 1/5 of the examples are for test, then 1/10 of the rest for validation


def stratified_split(
    labels_N: Tensor, *, n_val: int, n_train: int | None, seed: int, subset: Subset = "stratified"
) -> tuple[Tensor, Tensor]:
    """Return disjoint training and validation indices, each with the class proportions of `labels_N`.

    Args:
        labels_N: Label of each example.
        n_val: Number of validation examples.
        n_train: Number of training examples; None takes all that remain.
        seed: Random seed of the split.
        subset: Whether `n_train` examples are "stratified" or drawn at "random".

    Raises:
        ValueError: There are too few examples for these sizes.
    """
    from sklearn.model_selection import train_test_split

    n, num_classes = len(labels_N), len(torch.unique(labels_N))
    sizes = f"n_val={n_val}" if n_train is None else f"n_val={n_val} and n_train={n_train}"
    if n_val + (n_train or 1) > n:
        too_many = "leaves no example for training" if n_train is None else "are too many"
        raise ValueError(f"{sizes} {too_many}: {n} examples are available")
    if min(n_val, n_train or n - n_val) < num_classes:
        raise ValueError(
            f"{sizes} of {n} examples would make a split with fewer than {num_classes} examples, one per class"
        )
    labels = labels_N.numpy()
    train, val = train_test_split(range(n), test_size=n_val, stratify=labels, random_state=seed)
    if n_train is not None and n_train < len(train):
        train = choose_subset(train, labels, n_train, seed, subset)
    return torch.tensor(sorted(train)), torch.tensor(sorted(val))


def choose_subset(indices: list[int], labels: Any, size: int, seed: int, subset: Subset = "stratified") -> list[int]:
    """Return `size` of the indices: with their class proportions, or at random.

    Args:
        indices: Indices of the available examples.
        labels: Labels of all examples, as an array.
        size: Number of examples to choose, fewer than there are.
        seed: Random seed of the choice.
        subset: Whether the choice is "stratified" or "random".
    """
    from sklearn.model_selection import train_test_split

    strata = labels[indices]
    # train_test_split cannot stratify if it drops fewer than there are classes
    stratify = strata if subset == "stratified" and len(indices) - size >= len(set(strata)) else None
    return list(train_test_split(indices, train_size=size, stratify=stratify, random_state=seed)[0])


def random_split(size: int, *, n_val: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return disjoint training and validation indices of `size` examples, drawn at random.

    Raises:
        ValueError: There are too few examples.
    """
    if not 0 < n_val < size:
        raise ValueError(f"n_val={n_val} of {size} examples leaves one split empty")
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return order[n_val:].sort().values, order[:n_val].sort().values


def group_split(
    groups_N: Tensor, *, n_val: int, seed: int, column: str, labels_N: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return training and validation indices such that no group is in both.

    The validation set has about `n_val` examples, and about the class proportions of all if there are labels. It is one
    of the folds of scikit-learn's StratifiedGroupKFold, or of GroupKFold without labels.

    Args:
        groups_N: Number of the group of each example, such as a patient.
        n_val: Number of validation examples that is wanted.
        seed: Random seed of the split.
        column: What the groups are, for messages.
        labels_N: Label of each example; None if the targets are not classes.

    Raises:
        ValueError: There are fewer than two groups, or all examples of a class are in one of them.
    """
    size, num_groups = len(groups_N), len(torch.unique(groups_N))
    if num_groups < 2:
        raise ValueError(f"column {column!r} has {num_groups} group; at least 2 are needed to split by it")
    if not 0 < n_val < size:
        raise ValueError(f"n_val={n_val} of {size} examples leaves one split empty")
    num_folds = min(max(2, round(size / n_val)), num_groups)
    folds = group_folds(groups_N, num_folds=num_folds, seed=seed, labels_N=labels_N)
    train, val = min(folds, key=lambda fold: abs(len(fold[1]) - n_val))
    if labels_N is not None and (lost := set(labels_N.tolist()) - set(labels_N[train].tolist())):
        raise ValueError(
            f"the split by column {column!r} leaves class {min(lost)} without training examples: they "
            "are all in one group, or in few"
        )
    return train, val


def group_folds(
    groups_N: Tensor, *, num_folds: int, seed: int, labels_N: Tensor | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Return the training and validation indices of each fold. No group is in two folds.

    Args:
        groups_N: See `group_split`.
        num_folds: Number of folds, at most the number of groups.
        seed: Random seed of the folds.
        labels_N: See `group_split`. Folds have about equal class proportions then, otherwise about equal sizes.
    """
    import warnings

    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    counts = [] if labels_N is None else torch.unique(labels_N, return_counts=True)[1].tolist()
    stratifies = labels_N is not None and num_folds <= max(counts)
    splitter = (StratifiedGroupKFold if stratifies else GroupKFold)(num_folds, shuffle=True, random_state=seed)
    labels = labels_N.numpy() if stratifies and labels_N is not None else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # such classes are not in every fold
        found = list(splitter.split(range(len(groups_N)), labels, groups_N.numpy()))
    return [(torch.from_numpy(train), torch.from_numpy(val)) for train, val in found]

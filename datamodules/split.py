"""Stratified splits into training and validation examples.

Shapes: N examples.
"""

from typing import Any

import torch
from torch import Tensor


def stratified_split(labels_N: Tensor, *, n_val: int, n_train: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Return disjoint training and validation indices, each with the class proportions of `labels_N`.

    Args:
        labels_N: Label of each example.
        n_val: Number of validation examples.
        n_train: Number of training examples; None takes all that remain.
        seed: Random seed of the split.

    Raises:
        ValueError: There are too few examples for these sizes.
    """
    from sklearn.model_selection import train_test_split

    n, num_classes = len(labels_N), len(torch.unique(labels_N))
    if n_val + (n_train or 1) > n:
        raise ValueError(f"n_val={n_val} and n_train={n_train} are more than the {n} available examples")
    if min(n_val, n_train or n - n_val) < num_classes:
        raise ValueError(
            f"n_val={n_val} and n_train={n_train} of {n} examples leave one split with fewer than {num_classes}, "
            "one per class"
        )
    labels = labels_N.numpy()
    train, val = train_test_split(range(n), test_size=n_val, stratify=labels, random_state=seed)
    if n_train is not None and n_train < len(train):
        train = stratified_subset(train, labels, n_train, seed)
    return torch.tensor(sorted(train)), torch.tensor(sorted(val))


def stratified_fold(labels_N: Tensor, *, folds: int, fold: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the training and validation indices of one fold. Each example validates in exactly one fold.

    Args:
        labels_N: Label of each example.
        folds: Number of folds, at least 2.
        fold: Index of the one that validates, from 0.
        seed: Random seed of the folds.

    Raises:
        ValueError: A class has fewer examples than there are folds.
    """
    from sklearn.model_selection import StratifiedKFold

    fewest = int(torch.unique(labels_N, return_counts=True)[1].min())
    if fewest < folds:
        raise ValueError(f"data.folds is {folds}, but a class has only {fewest} examples")
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels_N, labels_N)
    train, val = [*splits][fold]
    return torch.from_numpy(train), torch.from_numpy(val)


def stratified_subset(indices: list[int], labels: Any, size: int, seed: int) -> list[int]:
    """Return `size` of the indices, with their class proportions. `labels` has the labels of all examples."""
    from sklearn.model_selection import train_test_split

    num_dropped = len(indices) - size
    if num_dropped < len(set(labels[indices])):  # train_test_split cannot stratify so few: drop any
        return list(train_test_split(indices, train_size=size, random_state=seed)[0])
    return list(train_test_split(indices, train_size=size, stratify=labels[indices], random_state=seed)[0])

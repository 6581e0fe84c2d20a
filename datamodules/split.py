"""Which examples are for training and which for validation."""

from typing import Any

import torch
from torch import Tensor


def stratified_split(labels_N: Tensor, *, n_val: int, n_train: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Disjoint training and validation indices, each with the class proportions of `labels_N`.

    Raises:
        ValueError: There are not enough examples for the sizes asked for.
    """
    from sklearn.model_selection import train_test_split

    n, num_classes = len(labels_N), len(torch.unique(labels_N))
    if n_val + (n_train or 1) > n:
        raise ValueError(f"n_val={n_val} and n_train={n_train} ask for more than the {n} examples that there are")
    if min(n_val, n_train or n - n_val) < num_classes:
        raise ValueError(
            f"n_val={n_val} and n_train={n_train} of {n} examples leave one part with fewer than {num_classes}, "
            "one per class"
        )
    labels = labels_N.numpy()
    rest, val = train_test_split(range(n), test_size=n_val, stratify=labels, random_state=seed)
    if n_train is not None and n_train < len(rest):
        rest = stratified_subset(rest, labels, n_train, seed)
    return torch.tensor(sorted(rest)), torch.tensor(sorted(val))


def stratified_subset(indices: list[int], labels: Any, size: int, seed: int) -> list[int]:
    """As many of these indices, with the class proportions that `labels`, of all examples, have among them."""
    from sklearn.model_selection import train_test_split

    left_over = len(indices) - size
    if left_over < len(set(labels[indices])):  # too few to stratify what is left: any of them may go
        return list(train_test_split(indices, train_size=size, random_state=seed)[0])
    return list(train_test_split(indices, train_size=size, stratify=labels[indices], random_state=seed)[0])

"""Splits: disjoint, stratified, and determined by the split seed only."""

import numpy as np
import pytest
import torch

from datamodules.digits import Digits
from datamodules.split import group_folds, group_split, random_split, stratified_split

UNEQUAL = torch.repeat_interleave(torch.arange(4), torch.tensor([700, 200, 70, 30]))
"""1,000 labels of four classes of unequal size, sorted by class: the hardest case."""


def _counts(labels: torch.Tensor, indices: torch.Tensor) -> np.ndarray:
    return np.bincount(labels[indices].numpy(), minlength=4)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("n_val", [4, 99, 250])
def test_training_and_validation_are_disjoint_and_complete(n_val, seed):
    train, val = stratified_split(UNEQUAL, n_val=n_val, n_train=None, seed=seed)
    assert len(val) == n_val
    assert sorted(torch.cat([train, val]).tolist()) == list(range(1000))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("n_val", [20, 99, 250])
def test_each_split_has_the_class_proportions_to_within_one_example(n_val, seed):
    train, val = stratified_split(UNEQUAL, n_val=n_val, n_train=None, seed=seed)
    subset, _ = stratified_split(UNEQUAL, n_val=n_val, n_train=50, seed=seed)
    assert np.abs(_counts(UNEQUAL, val) - np.bincount(UNEQUAL) * n_val / 1000).max() < 1
    assert np.abs(_counts(UNEQUAL, subset) - _counts(UNEQUAL, train) * 50 / len(train)).max() < 1


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    first = stratified_split(UNEQUAL, n_val=100, n_train=100, seed=3)
    same_seed = stratified_split(UNEQUAL, n_val=100, n_train=100, seed=3)
    other_seed = stratified_split(UNEQUAL, n_val=100, n_train=100, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first, same_seed, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other_seed, strict=True))


@pytest.mark.parametrize("n_train", [4, 250, 895, 899, 900])
def test_a_training_subset_is_part_of_the_full_set_and_does_not_change_validation(n_train):
    full, val = stratified_split(UNEQUAL, n_val=100, n_train=None, seed=0)
    subset, same_val = stratified_split(UNEQUAL, n_val=100, n_train=n_train, seed=0)
    assert len(subset) == len(set(subset.tolist())) == n_train
    assert set(subset.tolist()) <= set(full.tolist())
    assert torch.equal(val, same_val)


def test_a_random_subset_varies_in_its_classes_as_a_draw_without_replacement_does():
    """50 of 900 examples, 70 % of them of class 0: 35 of that class, with a standard deviation of 3.15."""
    counts = []
    for seed in range(200):
        full, val = stratified_split(UNEQUAL, n_val=100, n_train=None, seed=seed)
        subset, same_val = stratified_split(UNEQUAL, n_val=100, n_train=50, seed=seed, subset="random")
        assert len(subset) == 50
        assert set(subset.tolist()) <= set(full.tolist())
        assert torch.equal(val, same_val)
        counts.append(_counts(UNEQUAL, subset)[0])
    assert np.mean(counts) == pytest.approx(35, abs=4 * 3.15 / np.sqrt(200))
    assert np.std(counts) == pytest.approx(3.15, abs=4 * 3.15 / np.sqrt(400))


@pytest.mark.parametrize("options", [{}, {"folds": 3, "fold": 1}])
def test_a_data_module_with_a_random_subset_keeps_its_validation_set(options):
    stratified, drawn = (Digits(n_train=250, subset=subset, **options) for subset in ("stratified", "random"))
    for data in (stratified, drawn):
        data.setup("fit")
    counts = [np.bincount(data.train_set.targets) for data in (stratified, drawn)]
    assert [sum(of_classes) for of_classes in counts] == [250, 250]
    assert np.ptp(counts[0]) <= 2 < np.ptp(counts[1])
    assert stratified.val_set.digest() == drawn.val_set.digest()


def test_the_error_for_an_unknown_subset_names_its_key():
    with pytest.raises(ValueError, match=r"data\.subset is 'any'; it must be stratified or random"):
        Digits(subset="any")


def test_the_global_random_state_does_not_affect_the_split():
    torch.manual_seed(1)
    first = stratified_split(UNEQUAL, n_val=100, n_train=100, seed=0)
    torch.manual_seed(2)
    second = stratified_split(UNEQUAL, n_val=100, n_train=100, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("n_val", "n_train"),
    [
        (1000, None),  # no training examples left
        (100, 901),
        (3, None),  # fewer than four, one per class
        (100, 3),
        (998, None),  # fewer than four training examples left
    ],
)
def test_impossible_sizes_are_an_error(n_val, n_train):
    with pytest.raises(ValueError, match=r"n_val|train_size"):
        stratified_split(UNEQUAL, n_val=n_val, n_train=n_train, seed=0)


def test_a_subset_of_digits_is_stratified_and_changes_neither_validation_nor_test():
    full, subset = Digits(), Digits(n_train=250)
    for data in (full, subset):
        data.setup("fit")
        data.setup("test")
    assert len(subset.train_set) == 250
    expected = np.bincount(full.train_set.targets) * 250 / 1237
    assert np.abs(np.bincount(subset.train_set.targets) - expected).max() < 1
    assert subset.val_set.digest() == full.val_set.digest()
    assert subset.test_set.digest() == full.test_set.digest()
    assert _image_bytes(subset.train_set) < _image_bytes(full.train_set)


def test_training_and_validation_images_of_digits_are_disjoint():
    data = Digits()
    data.setup("fit")
    assert not _image_bytes(data.train_set) & _image_bytes(data.val_set)


def _image_bytes(dataset) -> set[bytes]:
    return {image.numpy().tobytes() for image in dataset.inputs}


def test_the_split_seed_selects_the_validation_examples():
    digests = set()
    for seed in (0, 0, 1):
        data = Digits(split_seed=seed)
        data.setup("fit")
        digests.add(data.val_set.digest())
    assert len(digests) == 2


@pytest.mark.parametrize("key", ["batch_size", "n_val", "n_train"])
@pytest.mark.parametrize("value", [0, -1])
def test_the_error_for_a_size_below_one_names_its_key(key, value):
    with pytest.raises(ValueError, match=rf"data\.{key} is {value}; it must be 1 or more"):
        Digits(**{key: value})


def test_the_folds_by_group_have_each_example_once_and_no_group_twice():
    groups_N, labels_N = torch.arange(60) % 12, (torch.arange(60) % 12 > 5).long()
    folds = group_folds(groups_N, num_folds=4, seed=0, labels_N=labels_N)
    assert sorted(torch.cat([val for _, val in folds]).tolist()) == list(range(60))
    for train, val in folds:
        assert not {*groups_N[train].tolist()} & {*groups_N[val].tolist()}
        assert 0.3 < labels_N[val].float().mean() < 0.7
    assert not torch.equal(group_folds(groups_N, num_folds=4, seed=1, labels_N=labels_N)[0][1], folds[0][1])


def test_a_split_by_group_without_labels_has_about_the_size_that_is_wanted():
    groups_N = torch.arange(100) // 5
    train, val = group_split(groups_N, n_val=20, seed=0, column="patient")
    assert (len(train), len(val)) == (80, 20)
    assert not {*groups_N[train].tolist()} & {*groups_N[val].tolist()}


def test_a_random_split_has_each_example_once():
    train, val = random_split(10, n_val=3, seed=0)
    assert (len(train), len(val)) == (7, 3)
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(10))
    with pytest.raises(ValueError, match="leaves one split empty"):
        random_split(3, n_val=3, seed=0)


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"n_val": 30, "n_train": None}, "n_val=30 leaves no example for training: 20 examples are available"),
        (
            {"n_val": 5, "n_train": 1},
            "n_val=5 and n_train=1 of 20 examples would make a split with fewer than 4 ",
        ),
    ],
)
def test_a_split_that_is_impossible_is_told_in_words(sizes, told):
    with pytest.raises(ValueError, match=told):
        stratified_split(torch.arange(20) % 4, seed=0, **sizes)

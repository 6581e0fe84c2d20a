"""scikit-learn's digits: nothing is lost, and the test part is the same for everybody."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from datamodules.digits import Digits


def test_digits_have_1437_training_and_360_test_images_of_28x28():
    data = Digits()
    data.setup("fit")
    data.setup("test")
    assert [len(part) for part in (data.train_set, data.val_set, data.test_set)] == [1237, 200, 360]
    for train, size in [(True, 1437), (False, 360)]:
        images, labels = data.load(train=train)
        assert images.shape == (size, *data.input_shape) == (size, 1, 28, 28)
        assert labels.shape == (size,)
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert data.num_classes == 10


def test_pixels_use_the_whole_range():
    images, _ = Digits().load(train=True)
    assert (images.min(), images.max()) == (0, 255)


def _enlarge_by_hand(images_NHW: np.ndarray) -> np.ndarray:
    """Bilinear from 8x8 to 28x28 with pixel centres aligned: the same weights for rows and columns."""
    places = np.clip((np.arange(28) + 0.5) * 8 / 28 - 0.5, 0, 7)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(8)))
    return weights @ images_NHW @ weights.T * 255 / 16


def test_the_two_parts_together_are_all_of_scikit_learns_digits_enlarged_bilinearly():
    (train_images, train_labels), (test_images, test_labels) = Digits().load(train=True), Digits().load(train=False)
    ours = torch.cat([train_images, test_images])[:, 0].double().numpy()
    labels = torch.cat([train_labels, test_labels]).numpy()
    bunch = load_digits()
    theirs = _enlarge_by_hand(bunch.images)
    # One of ours for each of theirs: the nearest, which must be the same but for rounding.
    distances = ((theirs**2).sum((1, 2))[:, None] - 2 * theirs.reshape(1797, -1) @ ours.reshape(1797, -1).T) + (
        ours**2
    ).sum((1, 2))
    nearest = distances.argmin(1)
    assert len(set(nearest)) == 1797
    np.testing.assert_allclose(ours[nearest], theirs, atol=0.51)
    np.testing.assert_array_equal(labels[nearest], bunch.target)


@pytest.mark.parametrize("options", [{"split_seed": 7}, {"n_train": 50}, {"n_val": 20}, {"normalization": "unit"}])
def test_no_option_changes_the_test_part(options):
    usual, other = Digits(), Digits(**options)
    usual.setup("test")
    other.setup("test")
    assert usual.test_set.digest() == other.test_set.digest()


def test_the_test_part_is_stratified():
    _, labels = Digits().load(train=False)
    expected = np.bincount(load_digits().target) * 360 / 1797
    assert np.abs(np.bincount(labels.numpy()) - expected).max() < 1

"""scikit-learn's digits: the data are complete, and the test set is always the same."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from datamodules.digits import Digits


def test_digits_have_1437_training_and_360_test_images_of_28x28():
    data = Digits()
    data.setup("fit")
    data.setup("test")
    assert [len(dataset) for dataset in (data.train_set, data.val_set, data.test_set)] == [1237, 200, 360]
    for train, size in [(True, 1437), (False, 360)]:
        images, labels = data.load(train=train)
        assert images.shape == (size, *data.input_shape) == (size, 1, 28, 28)
        assert labels.shape == (size,)
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert data.num_classes == 10


def test_pixels_use_the_full_range():
    images, _ = Digits().load(train=True)
    assert (images.min(), images.max()) == (0, 255)


def _upsample_by_matrix(images_NHW: np.ndarray) -> np.ndarray:
    """Bilinear interpolation from 8x8 to 28x28 with aligned pixel centres; the same weights for rows and columns."""
    positions = np.clip((np.arange(28) + 0.5) * 8 / 28 - 0.5, 0, 7)
    weights = np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(8)))
    return weights @ images_NHW @ weights.T * 255 / 16


def test_training_and_test_images_together_are_all_digits_of_scikit_learn_upsampled():
    (train_images, train_labels), (test_images, test_labels) = Digits().load(train=True), Digits().load(train=False)
    images = torch.cat([train_images, test_images])[:, 0].double().numpy()
    labels = torch.cat([train_labels, test_labels]).numpy()
    bunch = load_digits()
    expected = _upsample_by_matrix(bunch.images)
    # Match each expected image to its nearest image, which must be equal up to rounding.
    distances = ((expected**2).sum((1, 2))[:, None] - 2 * expected.reshape(1797, -1) @ images.reshape(1797, -1).T) + (
        images**2
    ).sum((1, 2))
    nearest = distances.argmin(1)
    assert len(set(nearest)) == 1797
    np.testing.assert_allclose(images[nearest], expected, atol=0.51)
    np.testing.assert_array_equal(labels[nearest], bunch.target)


@pytest.mark.parametrize("options", [{"split_seed": 7}, {"n_train": 50}, {"n_val": 20}, {"normalization": "unit"}])
def test_no_option_changes_the_test_set(options):
    default, other = Digits(), Digits(**options)
    default.setup("test")
    other.setup("test")
    assert default.test_set.digest() == other.test_set.digest()


def test_the_test_set_is_stratified():
    _, labels = Digits().load(train=False)
    expected = np.bincount(load_digits().target) * 360 / 1797
    assert np.abs(np.bincount(labels.numpy()) - expected).max() < 1

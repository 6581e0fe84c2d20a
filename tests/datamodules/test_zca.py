"""ZCA whitening: covariance, statistics of the training images only, and saving in the checkpoint."""

import numpy as np
import pytest
import torch

from datamodules.digits import Digits
from datamodules.normalize import ZCA_EPSILON, Whiten, fit_zca


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """1,437 scanned digits, in all of which many pixels are black."""
    return Digits().load(train=True)[0]


@pytest.fixture(scope="module")
def whitening(images) -> Whiten:
    return fit_zca(images)


def _covariance(values_ND: np.ndarray) -> np.ndarray:
    return np.cov(values_ND, rowvar=False, bias=True)


def test_whitened_training_images_have_mean_zero_and_keep_their_shape(images, whitening):
    whitened = whitening(images)
    assert (whitened.shape, whitened.dtype) == (images.shape, torch.float32)
    assert whitened.double().mean(0).abs().max() < 1e-4


def test_the_covariance_of_whitened_images_has_eigenvalues_lambda_over_lambda_plus_epsilon(images, whitening):
    before = np.linalg.eigvalsh(_covariance(images.flatten(1).double().numpy() / 255))
    after = np.linalg.eigvalsh(_covariance(whitening(images).flatten(1).double().numpy()))
    relative = before / before.mean()
    expected = relative / (relative + ZCA_EPSILON)
    np.testing.assert_allclose(after, expected / expected.mean(), rtol=1e-3, atol=1e-3)


def test_the_variance_of_whitened_images_is_one_on_average(images, whitening):
    variances = whitening(images).flatten(1).double().var(0, correction=0)
    assert float(variances.mean()) == pytest.approx(1, abs=1e-3)


def test_whitening_reduces_correlations(images, whitening):
    def off_diagonal_share(values: torch.Tensor) -> float:
        squares = _covariance(values.flatten(1).double().numpy()) ** 2
        return 1 - np.trace(squares) / squares.sum()

    assert off_diagonal_share(whitening(images)) < off_diagonal_share(images)


def test_the_matrix_is_symmetric_and_positive_definite(images, whitening):
    torch.testing.assert_close(whitening.matrix, whitening.matrix.T, rtol=0, atol=1e-5)
    assert torch.linalg.eigvalsh(whitening.matrix.double()).min() > 0


def test_constant_pixels_do_not_give_nan(images, whitening):
    constant = (images == images[0]).all(0).flatten()
    assert constant.sum() >= 10
    whitened = whitening(images).flatten(1)
    assert whitened.isfinite().all()
    assert whitened[:, constant].abs().max() < 1e-2


def test_identical_images_cannot_be_whitened(images):
    with pytest.raises(ValueError, match="all the same"):
        fit_zca(images[:1].expand(20, -1, -1, -1))


def test_statistics_are_computed_from_the_training_images_in_use_only():
    data = Digits(n_train=100, normalization="zca")
    data.setup("fit")
    pixels = data.train_set.inputs.flatten(1).double() / 255
    torch.testing.assert_close(data.normalize.mean.double(), pixels.mean(0), rtol=0, atol=1e-6)
    torch.testing.assert_close(data.normalize.matrix, fit_zca(data.train_set.inputs).matrix, rtol=0, atol=0)
    all_images = fit_zca(data.load(train=True)[0])
    assert (data.normalize.mean - all_images.mean).abs().max() > 1e-3


def test_the_state_restores_the_whitening_without_training_data():
    trained, restored = Digits(n_train=100, normalization="zca"), Digits(normalization="zca")
    trained.setup("fit")
    restored.load_state_dict(trained.state_dict())
    restored.setup("test")
    assert not hasattr(restored, "train_set")
    batch = (restored.test_set.inputs, restored.test_set.targets)
    assert torch.equal(restored.on_after_batch_transfer(batch, 0)[0], trained.on_after_batch_transfer(batch, 0)[0])


def test_describe_returns_the_whitening_without_its_matrix():
    data = Digits(n_train=100, normalization="zca")
    data.setup("fit")
    data.setup("test")
    description = data.describe()
    assert (description["whitening"], description["values"], description["epsilon"]) == ("zca", 784, ZCA_EPSILON)
    assert "matrix" not in description

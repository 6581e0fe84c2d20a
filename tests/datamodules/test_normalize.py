"""Normalisation: the formula, statistics of the training examples only, and saving in the checkpoint."""

import numpy as np
import pytest
import torch

from datamodules.digits import Digits
from datamodules.normalize import Normalize, channel_statistics
from modules.linear import LinearClassifier


def _fitted(**options) -> Digits:
    data = Digits(**options)
    data.setup("fit")
    return data


@pytest.fixture
def colours(scans) -> torch.Tensor:
    """100 images of 28x20 whose channels are three different scans, one at half brightness, one inverted."""
    images = torch.from_numpy(scans[0][:300, :, :20]).view(100, 3, 28, 20).clone()
    images[:, 1] //= 2
    images[:, 2] = 255 - images[:, 2]
    return images


def test_statistics_equal_those_of_each_channel_in_double_precision(colours):
    mean, std = channel_statistics(colours)
    pixels = colours.double().numpy() / 255
    assert mean.dtype == std.dtype == torch.float32
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(std, pixels.std((0, 2, 3)), rtol=1e-7)


def test_statistics_are_computed_from_the_training_subset_only():
    data = _fitted(n_train=50)
    images, _ = data.load(train=True)
    pixels = data.train_set.inputs.double().numpy() / 255
    assert len(pixels) == 50
    np.testing.assert_allclose(data.normalize.mean, [pixels.mean()], rtol=1e-7)
    np.testing.assert_allclose(data.normalize.std, [pixels.std()], rtol=1e-7)
    assert abs(data.normalize.mean[0] - images.double().mean() / 255) > 1e-5


@pytest.mark.parametrize("values", [(0, 255), range(256)])
def test_a_constant_channel_cannot_be_standardised_whatever_its_value(colours, values):
    for value in values:
        colours[:, 1] = value
        with pytest.raises(ValueError, match="constant"):
            channel_statistics(colours)


def test_each_channel_is_normalised_by_the_formula(colours):
    mean, std = np.array([0.1, 0.2, 0.6]), np.array([0.3, 0.5, 0.07])
    normalised = Normalize(torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32))(colours)
    expected = (colours.double().numpy() / 255 - mean[:, None, None]) / std[:, None, None]
    assert normalised.dtype == torch.float32
    np.testing.assert_allclose(normalised, expected, rtol=1e-5, atol=2e-6)


def test_unit_normalisation_only_scales_pixels_to_zero_to_one():
    data = _fitted(normalization="unit")
    images = data.val_set.inputs
    np.testing.assert_allclose(data.normalize(images), images.double() / 255, rtol=1e-6)
    assert (data.normalize.mean, data.normalize.std) == ([0.0], [1.0])


@pytest.mark.parametrize("n_train", [None, 50])
def test_standardised_training_images_have_mean_zero_and_deviation_one(n_train):
    data = _fitted(n_train=n_train)
    pixels = data.normalize(data.train_set.inputs).double()
    assert float(pixels.mean()) == pytest.approx(0, abs=1e-6)
    assert float(pixels.std(correction=0)) == pytest.approx(1, abs=1e-6)


def test_a_batch_keeps_its_labels():
    data = _fitted()
    images, labels = data.on_after_batch_transfer((data.val_set.inputs, data.val_set.targets), 0)
    assert torch.equal(labels, data.val_set.targets)
    assert torch.equal(images, data.normalize(data.val_set.inputs))


@pytest.mark.parametrize("normalization", ["standard", "unit"])
def test_the_state_restores_the_normalisation_without_training_data(normalization):
    trained, restored = _fitted(normalization=normalization, n_train=50), Digits()
    restored.load_state_dict(trained.state_dict())
    restored.setup("test")
    assert not hasattr(restored, "train_set")
    batch = (restored.test_set.inputs, restored.test_set.targets)
    assert torch.equal(restored.on_after_batch_transfer(batch, 0)[0], trained.on_after_batch_transfer(batch, 0)[0])


def test_statistics_from_a_checkpoint_are_not_replaced_by_setup():
    trained, restored = _fitted(n_train=50), Digits(n_train=20)
    restored.load_state_dict(trained.state_dict())
    restored.setup("fit")
    assert restored.state_dict() == trained.state_dict()


def test_a_test_uses_the_normalisation_of_the_checkpoint_without_training_data(make_trainer, tmp_path):
    trainer, model, data = make_trainer(max_epochs=1), LinearClassifier((1, 28, 28), 10), Digits(n_train=50)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    (expected,) = trainer.test(model, data, verbose=False)
    other = Digits()
    arguments = {"ckpt_path": tmp_path / "last.ckpt", "weights_only": True, "verbose": False}
    (restored,) = make_trainer().test(LinearClassifier((1, 28, 28), 10), other, **arguments)
    assert restored == expected
    assert not hasattr(other, "train_set")


def test_normalisation_on_a_device_leaves_the_original_on_the_cpu():
    """Figures, baselines and exports normalise on the CPU after a training on a GPU."""
    data = _fitted()
    batch = (data.val_set.inputs.to("meta"), data.val_set.targets)
    assert data.on_after_batch_transfer(batch, 0)[0].device.type == "meta"
    assert data.normalize(data.val_set.inputs).device.type == "cpu"
    data.load_state_dict({"mean": [0.5], "std": [0.1]})
    assert data.on_after_batch_transfer(batch, 0)[0].device.type == "meta"
    assert data.normalize.mean == [0.5]

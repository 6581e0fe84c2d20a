"""Random crops and flips: independent per image, uniformly distributed, and in training only."""

from itertools import product

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from scipy.stats import chisquare
from torchvision.transforms.functional import crop, pad

from datamodules.augment import alternating_flip, random_crop, random_flip
from datamodules.digits import Digits
from modules.linear import LinearClassifier

SIGNIFICANCE = 1e-4
"""Significance level of the chi-squared tests. Seeds are fixed, so that the results are reproducible."""


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def _crops_by_torchvision(image_CHW: torch.Tensor, padding: int) -> dict[bytes, tuple[int, int]]:
    """All crops of an image by torchvision, with their offsets."""
    _, height, width = image_CHW.shape
    padded = pad(image_CHW, [padding] * 4)
    offsets = product(range(2 * padding + 1), repeat=2)
    return {crop(padded, top, left, height, width).numpy().tobytes(): (top, left) for top, left in offsets}


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 28, 20), (3, 20, 28)])
def test_each_crop_is_one_of_the_crops_by_torchvision(scans, shape):
    images = torch.from_numpy(scans[0]).flatten()[: 200 * np.prod(shape)].view(200, *shape)
    crops = random_crop(images, padding=3)
    assert crops.shape == images.shape
    assert crops.dtype == torch.uint8
    pairs = zip(images, crops, strict=True)
    assert all(cropped.numpy().tobytes() in _crops_by_torchvision(image, 3) for image, cropped in pairs)


def _offsets(crops: torch.Tensor, image: torch.Tensor, padding: int) -> list[tuple[int, int]]:
    expected = _crops_by_torchvision(image, padding)
    assert len(expected) == (2 * padding + 1) ** 2, "some crops of the image are identical"
    return [expected[cropped.numpy().tobytes()] for cropped in crops]


@pytest.mark.parametrize("padding", [1, 2])
def test_all_offsets_of_a_crop_are_equally_likely(padding):
    image = torch.zeros(1, 9, 7, dtype=torch.uint8)
    image[0, 4, 3] = 255
    offsets = _offsets(random_crop(image.expand(10_000, 1, 9, 7), padding), image, padding)
    counts = [offsets.count(offset) for offset in product(range(2 * padding + 1), repeat=2)]
    assert chisquare(counts).pvalue > SIGNIFICANCE


def test_adjacent_images_of_a_batch_are_cropped_independently():
    image = torch.zeros(1, 5, 5, dtype=torch.uint8)
    image[0, 2, 2] = 255
    offsets = _offsets(random_crop(image.expand(20_000, 1, 5, 5), 1), image, 1)
    pairs = list(zip(offsets[::2], offsets[1::2], strict=True))
    counts = [pairs.count(pair) for pair in product(product(range(3), repeat=2), repeat=2)]
    assert len(counts) == 81
    assert chisquare(counts).pvalue > SIGNIFICANCE


def test_two_batches_are_cropped_differently(scans):
    images = torch.from_numpy(scans[0][:50, None])
    assert not torch.equal(random_crop(images, 2), random_crop(images, 2))


def test_half_of_the_images_are_flipped_and_the_others_are_unchanged(scans):
    images = torch.from_numpy(scans[0][:1400]).view(700, 2, 28, 28)
    outputs = random_flip(images)
    flipped = [torch.equal(after, before.flip(2)) for before, after in zip(images, outputs, strict=True)]
    unchanged = [torch.equal(after, before) for before, after in zip(images, outputs, strict=True)]
    assert all(one != other for one, other in zip(flipped, unchanged, strict=True))
    assert chisquare([sum(flipped), sum(unchanged)]).pvalue > SIGNIFICANCE


def test_an_alternating_flip_shows_each_image_once_in_both_directions_within_two_epochs(scans):
    images = torch.from_numpy(scans[0][:1400]).view(700, 2, 28, 28)
    epochs = [alternating_flip(images, epoch, seed=0) for epoch in range(3)]
    assert torch.equal(epochs[0], epochs[2])
    assert torch.equal(epochs[1], epochs[0].flip(3))
    flipped = [torch.equal(after, before.flip(2)) for before, after in zip(images, epochs[0], strict=True)]
    assert chisquare([sum(flipped), 700 - sum(flipped)]).pvalue > SIGNIFICANCE
    other = alternating_flip(images, 0, seed=1)
    equal = sum(torch.equal(one, two) for one, two in zip(epochs[0], other, strict=True))
    assert chisquare([equal, 700 - equal]).pvalue > SIGNIFICANCE
    shuffled = torch.randperm(700)
    assert torch.equal(alternating_flip(images[shuffled], 0, seed=0), epochs[0][shuffled])


def test_alternate_flips_follow_the_epochs_of_a_training(make_trainer):
    data, record = Digits(batch_size=1237, flip="alternate", n_train=40), _RecordBatches()
    make_trainer(max_epochs=2, callbacks=[record]).fit(LinearClassifier(data.input_shape, 10), data)
    first, second = (sorted(image.flatten().tolist() for image in images) for images in record.train)
    mirrored = sorted(image.flip(2).flatten().tolist() for image in record.train[1])
    assert first == mirrored
    assert first != second


def test_an_unknown_flip_is_refused():
    with pytest.raises(ValueError, match=r"data\.flip is 'often'; it must be true, false or alternate"):
        Digits(flip="often")


class _RecordBatches(Callback):
    """Record the images that the model receives, in training and in evaluation."""

    def __init__(self) -> None:
        self.train: list[torch.Tensor] = []
        self.val: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.train.append(batch[0])

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0) -> None:
        self.val.append(batch[0])

    on_test_batch_start = on_validation_batch_start


def _image_bytes(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


@pytest.fixture
def run(make_trainer):
    """Function that fits and tests on Digits with some options; returns the data and the images the model received."""

    def fit_and_test(**options) -> tuple[Digits, _RecordBatches]:
        data, batches = Digits(n_train=100, n_val=50, **options), _RecordBatches()
        trainer = make_trainer(max_epochs=2, callbacks=[batches])
        model = LinearClassifier((1, 28, 28), 10)
        trainer.fit(model, data)
        trainer.test(model, data, verbose=False)
        return data, batches

    return fit_and_test


def test_evaluation_images_are_not_augmented(run):
    data, batches = run(crop_padding=2, flip=True)
    val, test = data.normalize(data.val_set.inputs), data.normalize(data.test_set.inputs)
    assert [len(images) for images in batches.val] == [50, 50, 360]
    assert all(torch.equal(image, expected) for image, expected in zip(batches.val, [val, val, test], strict=True))


@pytest.mark.parametrize("options", [{"crop_padding": 2}, {"flip": True}])
def test_training_images_are_augmented_differently_in_each_epoch(run, options):
    data, batches = run(**options)
    originals = _image_bytes(data.normalize(data.train_set.inputs))
    first, second = _image_bytes(torch.cat(batches.train[:2])), _image_bytes(torch.cat(batches.train[2:]))
    for epoch in (first, second):
        assert len(epoch) == 100
        assert len(epoch - originals) > 20
    assert len(first - second) > 20


def test_without_augmentation_training_images_are_the_originals(run):
    data, batches = run()
    originals = _image_bytes(data.normalize(data.train_set.inputs))
    assert _image_bytes(torch.cat(batches.train[:2])) == _image_bytes(torch.cat(batches.train[2:])) == originals


def test_crops_are_padded_with_black_before_normalisation(run):
    """Padding after normalisation would add grey pixels."""
    data, batches = run(crop_padding=2)
    crops = set().union(*(_crops_by_torchvision(image, 2) for image in data.train_set.inputs))
    pixels = torch.cat(batches.train) * data.normalize.std[0] + data.normalize.mean[0]
    assert _image_bytes((pixels * 255).round().to(torch.uint8)) <= crops


def test_the_error_for_a_negative_padding_names_its_key():
    with pytest.raises(ValueError, match=r"data\.crop_padding is -1"):
        Digits(crop_padding=-1)

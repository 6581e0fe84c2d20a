"""Random crops and flips: each image its own draw, each draw equally likely, and training images only."""

from itertools import product

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from scipy.stats import chisquare
from torchvision.transforms.functional import crop, pad

from datamodules.augment import random_crop, random_flip
from datamodules.digits import Digits
from modules.linear import LinearClassifier

UNLIKELY = 1e-4
"""Below this probability of chance, we say that it was not chance. The seeds are fixed, so that a verdict stays."""


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def _windows(image_CHW: torch.Tensor, padding: int) -> dict[bytes, tuple[int, int]]:
    """All crops that torchvision can cut from an image, and where."""
    _, height, width = image_CHW.shape
    padded = pad(image_CHW, [padding] * 4)
    places = product(range(2 * padding + 1), repeat=2)
    return {crop(padded, top, left, height, width).numpy().tobytes(): (top, left) for top, left in places}


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 28, 20), (3, 20, 28)])
def test_each_crop_is_one_that_torchvision_can_cut_from_the_same_image(scans, shape):
    images = torch.from_numpy(scans[0]).flatten()[: 200 * np.prod(shape)].view(200, *shape)
    crops = random_crop(images, padding=3)
    assert crops.shape == images.shape
    assert crops.dtype == torch.uint8
    assert all(cut.numpy().tobytes() in _windows(image, 3) for image, cut in zip(images, crops, strict=True))


def _places(crops: torch.Tensor, image: torch.Tensor, padding: int) -> list[tuple[int, int]]:
    windows = _windows(image, padding)
    assert len(windows) == (2 * padding + 1) ** 2, "the image does not tell all places apart"
    return [windows[cut.numpy().tobytes()] for cut in crops]


@pytest.mark.parametrize("padding", [1, 2])
def test_all_places_of_a_crop_are_equally_likely(padding):
    image = torch.zeros(1, 9, 7, dtype=torch.uint8)
    image[0, 4, 3] = 255
    places = _places(random_crop(image.expand(10_000, 1, 9, 7), padding), image, padding)
    counts = [places.count(place) for place in product(range(2 * padding + 1), repeat=2)]
    assert chisquare(counts).pvalue > UNLIKELY


def test_neighbours_in_a_batch_are_cropped_independently():
    image = torch.zeros(1, 5, 5, dtype=torch.uint8)
    image[0, 2, 2] = 255
    places = _places(random_crop(image.expand(20_000, 1, 5, 5), 1), image, 1)
    pairs = list(zip(places[::2], places[1::2], strict=True))
    counts = [pairs.count(pair) for pair in product(product(range(3), repeat=2), repeat=2)]
    assert len(counts) == 81
    assert chisquare(counts).pvalue > UNLIKELY


def test_two_batches_are_cropped_differently(scans):
    images = torch.from_numpy(scans[0][:50, None])
    assert not torch.equal(random_crop(images, 2), random_crop(images, 2))


def test_each_image_is_either_itself_or_its_mirror_and_half_are_mirrored(scans):
    images = torch.from_numpy(scans[0][:1400]).view(700, 2, 28, 28)
    flips = random_flip(images)
    mirrored = [torch.equal(after, before.flip(2)) for before, after in zip(images, flips, strict=True)]
    untouched = [torch.equal(after, before) for before, after in zip(images, flips, strict=True)]
    assert all(one != other for one, other in zip(mirrored, untouched, strict=True))
    assert chisquare([sum(mirrored), sum(untouched)]).pvalue > UNLIKELY


class _Batches(Callback):
    """Keeps the images that the model gets, in training and in validation."""

    def __init__(self) -> None:
        self.train: list[torch.Tensor] = []
        self.val: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.train.append(batch[0])

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0) -> None:
        self.val.append(batch[0])

    on_test_batch_start = on_validation_batch_start


def _rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


@pytest.fixture
def run(make_trainer):
    """Fits and tests on Digits with these options; gives back the data and the images that the model got."""

    def fit_and_test(**options) -> tuple[Digits, _Batches]:
        data, batches = Digits(n_train=100, n_val=50, **options), _Batches()
        trainer = make_trainer(max_epochs=2, callbacks=[batches])
        model = LinearClassifier((1, 28, 28), 10)
        trainer.fit(model, data)
        trainer.test(model, data, verbose=False)
        return data, batches

    return fit_and_test


def test_evaluation_images_are_not_augmented(run):
    data, batches = run(crop_padding=2, flip=True)
    val, test = data.normalize(data.val_set.images_NCHW), data.normalize(data.test_set.images_NCHW)
    assert [len(images) for images in batches.val] == [50, 50, 360]
    assert all(torch.equal(got, given) for got, given in zip(batches.val, [val, val, test], strict=True))


@pytest.mark.parametrize("options", [{"crop_padding": 2}, {"flip": True}])
def test_training_images_are_augmented_afresh_in_each_epoch(run, options):
    data, batches = run(**options)
    originals = _rows(data.normalize(data.train_set.images_NCHW))
    first, second = _rows(torch.cat(batches.train[:2])), _rows(torch.cat(batches.train[2:]))
    for epoch in (first, second):
        assert len(epoch) == 100
        assert len(epoch - originals) > 20
    assert len(first - second) > 20


def test_without_options_training_images_are_the_originals(run):
    data, batches = run()
    originals = _rows(data.normalize(data.train_set.images_NCHW))
    assert _rows(torch.cat(batches.train[:2])) == _rows(torch.cat(batches.train[2:])) == originals


def test_cropped_training_images_are_padded_with_black_and_then_normalised(run):
    """Not the other way round: padding after normalisation would bring in grey."""
    data, batches = run(crop_padding=2)
    windows = set().union(*(_windows(image, 2) for image in data.train_set.images_NCHW))
    pixels = torch.cat(batches.train) * data.normalize.std[0] + data.normalize.mean[0]
    assert _rows((pixels * 255).round().to(torch.uint8)) <= windows


def test_a_negative_padding_is_refused_by_its_key():
    with pytest.raises(ValueError, match=r"data\.crop_padding is -1"):
        Digits(crop_padding=-1)

"""Selecting the images to explain."""

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.explanation.images import select_images
from pipelines.explanation.settings import ImageSelection
from pipelines.runtime.errors import UserError


def select(target, *image, **options):
    return select_images(target, ImageSelection([str(name) for name in image], **options))


def test_an_index_selects_that_image_of_the_test_set(target):
    images = select(target, 12, 3)
    pixels, labels = target.test_set()
    assert (images.pixels_NCHW * 255).round().byte().equal(pixels[[12, 3]])
    assert images.labels == [int(labels[12]), int(labels[3])]


def test_a_file_is_resized_to_the_networks_input_shape_and_has_no_label(target, tmp_path):
    Image.fromarray(np.full((40, 30, 3), (255, 0, 0), dtype=np.uint8)).save(tmp_path / "red.png")
    images = select(target, tmp_path / "red.png", 0)
    assert images.pixels_NCHW.shape == (2, *target.input_shape)
    torch.testing.assert_close(images.pixels_NCHW[0], torch.full(target.input_shape, 76 / 255))  # the grey of red
    assert images.labels[0] is None
    inverted = select(target, tmp_path / "red.png", invert=True)
    torch.testing.assert_close(inverted.pixels_NCHW, 1 - images.pixels_NCHW[:1])


def test_the_default_is_the_first_test_image_of_each_class(target):
    labels = target.test_set()[1].tolist()
    assert select_images(target).sources == [labels.index(number) for number in range(10)]
    assert select(target, images_per_class=3).labels == [number for number in range(10) for _ in range(3)]


@pytest.mark.parametrize(
    ("image", "images_per_class", "message"),
    [
        (["360"], None, r"--image 360: the test set has 360 images, 0 to 359"),
        (["none.png"], None, r"none.png: no such file"),
        (["1"], 2, "exclude each other"),
        ([], 0, "must be 1 or more"),
    ],
)
def test_an_error_names_the_image_that_does_not_exist(target, image, images_per_class, message):
    with pytest.raises(UserError, match=message):
        select(target, *image, images_per_class=images_per_class)

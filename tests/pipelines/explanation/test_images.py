"""The images that are looked at."""

import argparse

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.explanation import images
from pipelines.runtime.errors import UserError


def choose(subject, *argv):
    parser = argparse.ArgumentParser()
    images.add_options(parser)
    return images.choose(subject, parser.parse_args([str(token) for token in argv]))


def test_an_index_is_that_image_of_the_test_set(subject):
    chosen = choose(subject, "--image", 12, 3)
    pixels, labels = subject.test_set()
    assert (chosen.pixels_NCHW * 255).round().byte().equal(pixels[[12, 3]])
    assert chosen.labels == [int(labels[12]), int(labels[3])]
    assert chosen.captions[0] == f"test image 12: {int(labels[12])}"


def test_a_file_becomes_pixels_of_the_networks_shape_and_has_no_label(subject, tmp_path):
    Image.fromarray(np.full((40, 30, 3), (255, 0, 0), dtype=np.uint8)).save(tmp_path / "red.png")
    chosen = choose(subject, "--image", tmp_path / "red.png", 0)
    assert chosen.pixels_NCHW.shape == (2, *subject.input_shape)
    torch.testing.assert_close(chosen.pixels_NCHW[0], torch.full(subject.input_shape, 76 / 255))  # the grey of red
    assert chosen.labels[0] is None
    inverted = choose(subject, "--image", tmp_path / "red.png", "--invert")
    torch.testing.assert_close(inverted.pixels_NCHW, 1 - chosen.pixels_NCHW[:1])


def test_without_a_choice_it_is_the_first_test_image_of_each_class(subject):
    labels = subject.test_set()[1].tolist()
    assert choose(subject).sources == [labels.index(number) for number in range(10)]
    assert choose(subject, "--images-per-class", 3).labels == [number for number in range(10) for _ in range(3)]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--image", "360"], r"--image 360: the test set has 360 images, 0 to 359"),
        (["--image", "none.png"], r"none.png: no such file"),
        (["--image", "1", "--images-per-class", "2"], "one of them"),
        (["--images-per-class", "0"], "1 or more"),
    ],
)
def test_an_image_that_is_not_there_is_said(subject, argv, said):
    with pytest.raises(UserError, match=said):
        choose(subject, *argv)

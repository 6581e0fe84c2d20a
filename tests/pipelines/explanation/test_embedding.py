"""Test images in the plane."""

import json
from argparse import Namespace

import numpy as np
import pytest
import torch

from pipelines.explanation.embedding import _images, embed, outputs, own_class


def clusters(distance):
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 50)
    points = generator.normal(size=(200, 8)) + distance * np.eye(8)[labels]
    return points.astype(np.float32), labels


def test_classes_that_are_apart_have_their_own_neighbours_and_shuffled_ones_have_not():
    points, labels = clusters(20)
    assert own_class(points, labels) == 1
    assert own_class(points, np.random.default_rng(1).permutation(labels)) < 0.5


def test_both_planes_keep_classes_apart_that_are_and_a_seed_makes_them_again():
    points, labels = clusters(20)
    planes = embed(points, 30, 0)
    assert list(planes) == ["PCA", "t-SNE"]
    assert own_class(planes["t-SNE"], labels) == 1
    assert own_class(planes["PCA"], labels) > 0.7  # four corners in three dimensions, seen in two
    again = embed(points, 30, 0)
    assert all(np.array_equal(planes[name], again[name]) for name in planes)


def test_outputs_are_those_of_the_layer_for_all_images(subject):
    images = subject.test_set()[0][:260]
    expected = subject.activations("fc1", images / 255)
    torch.testing.assert_close(torch.from_numpy(outputs(subject, subject.layer("fc1"), images)), expected)
    assert outputs(subject, subject.layer("conv1"), images[:3]).shape == (3, 16 * 28 * 28)


def test_the_command_takes_the_layer_before_the_last_and_finds_classes_apart_there(explain, subject):
    outcome = explain("embedding", "--count", "200", "--perplexity", "20")
    assert outcome.code == 0, outcome.err
    numbers = json.loads(next(outcome.folder.glob("embedding-*-fc1.json")).read_text())
    assert numbers["own_class_layer"] > 0.8
    assert len(numbers["PCA"]) == len(numbers["t-SNE"]) == numbers["count"] == 200
    assert sorted(set(numbers["labels"])) == list(range(10))


def test_test_images_are_drawn_by_the_seed_from_the_whole_test_set(subject):
    """Its files may be in the order of the classes, so that the first ones would be of one class."""
    pixels, labels = subject.test_set()

    def drawn(count, seed):
        return _images(subject, Namespace(image=[], images_per_class=None, count=count, seed=seed))

    whole = drawn(1000, 0)
    assert whole[0].equal(pixels)
    assert whole[1].tolist() == labels.tolist()
    for seed in (0, 1):
        places = [int((pixels == image).all((1, 2, 3)).nonzero()[0]) for image in drawn(20, seed)[0]]
        assert places == sorted(places)
        assert max(places) > 200
        assert drawn(20, seed)[1].tolist() == labels[places].tolist()
    assert not drawn(20, 0)[0].equal(drawn(20, 1)[0])


@pytest.mark.parametrize("argv", [["--count", "60", "--perplexity", "30"], ["--perplexity", "0"]])
def test_a_perplexity_that_the_images_do_not_allow_is_said(explain, argv):
    outcome = explain("embedding", *argv)
    assert outcome.code == 2
    assert "below a third of" in outcome.err

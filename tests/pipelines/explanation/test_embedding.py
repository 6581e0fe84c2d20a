"""Embeddings of test images in the plane."""

import json

import numpy as np
import pytest
import torch

from pipelines.explanation.embedding import _random_test_images, layer_features, own_class_share, project


def clusters(distance):
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 50)
    points = generator.normal(size=(200, 8)) + distance * np.eye(8)[labels]
    return points.astype(np.float32), labels


def test_separate_classes_are_their_own_neighbours_and_shuffled_ones_are_not():
    points, labels = clusters(20)
    assert own_class_share(points, labels) == 1
    assert own_class_share(points, np.random.default_rng(1).permutation(labels)) < 0.5


def test_both_planes_keep_separate_classes_separate_and_are_reproducible():
    points, labels = clusters(20)
    planes = project(points, 30, 0)
    assert list(planes) == ["PCA", "t-SNE"]
    assert own_class_share(planes["t-SNE"], labels) == 1
    assert own_class_share(planes["PCA"], labels) > 0.7  # four corners in three dimensions, seen in two
    repeated = project(points, 30, 0)
    assert all(np.array_equal(planes[name], repeated[name]) for name in planes)


def test_features_are_the_layers_output_for_all_images(target):
    images = target.test_set()[0][:260]
    expected = target.activations("fc1", images / 255)
    torch.testing.assert_close(torch.from_numpy(layer_features(target, target.layer("fc1"), images)), expected)
    assert layer_features(target, target.layer("conv1"), images[:3]).shape == (3, 16 * 28 * 28)


def test_the_default_layer_is_the_last_but_one_and_separates_the_classes(explain, target):
    outcome = explain("embedding", "--count", "200", "--perplexity", "20")
    assert outcome.code == 0, outcome.err
    numbers = json.loads(next(outcome.folder.glob("embedding-*-fc1.json")).read_text())
    assert numbers["own_class_layer"] > 0.8
    assert len(numbers["PCA"]) == len(numbers["t-SNE"]) == numbers["count"] == 200
    assert sorted(set(numbers["labels"])) == list(range(10))


def test_random_test_images_come_from_the_entire_test_set_and_depend_on_the_seed(target):
    """Files may be sorted by class, so that the first ones would belong to one class."""
    pixels, labels = target.test_set()

    def drawn(count, seed):
        return _random_test_images(target, count, seed)

    everything = drawn(1000, 0)
    assert everything[0].equal(pixels)
    assert everything[1].tolist() == labels.tolist()
    for seed in (0, 1):
        indices = [int((pixels == image).all((1, 2, 3)).nonzero()[0]) for image in drawn(20, seed)[0]]
        assert indices == sorted(indices)
        assert max(indices) > 200
        assert drawn(20, seed)[1].tolist() == labels[indices].tolist()
    assert not drawn(20, 0)[0].equal(drawn(20, 1)[0])


@pytest.mark.parametrize("argv", [["--count", "60", "--perplexity", "30"], ["--perplexity", "0"]])
def test_a_perplexity_out_of_range_is_the_users_mistake(explain, argv):
    outcome = explain("embedding", *argv)
    assert outcome.code == 2
    assert "below a third of" in outcome.err

"""Figures of a run: learning curves, reconstructions, codes, predictions and decision regions."""

import numpy as np
import pytest
from PIL import Image

from datamodules.circles import Circles
from pipelines.evaluation import figures

GENERATOR = np.random.default_rng(0)
COLOURED = GENERATOR.integers(0, 256, (5, 3, 8, 8)).astype(np.uint8)
LABELS = np.array([0, 1, 2, 2, 0])


def _ink(figure, tmp_path) -> float:
    """Return the standard deviation of a figure's pixels; 0 if it is blank."""
    figure.savefig(tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        return float(np.asarray(picture.convert("L")).std())


def test_reconstructions_are_drawn_in_colour_and_for_few_images(tmp_path):
    again = COLOURED[:, :, ::-1].astype(np.float32) / 255 * 1.5 - 0.2  # values outside [0, 1] are clipped
    figure = figures.reconstructions(COLOURED, again)
    (axis,) = figure.axes
    assert len(axis.images) == 10
    assert _ink(figure, tmp_path) > 1
    assert [image.get_array().shape for image in axis.images] == [(8, 8, 3)] * 10
    np.testing.assert_allclose(axis.images[0].get_array(), COLOURED[0].transpose(1, 2, 0) / 255)
    np.testing.assert_allclose(axis.images[5].get_array(), again[0].clip(0, 1).transpose(1, 2, 0))
    (left, right, lower, upper), *_, (_, _, below, _) = (image.get_extent() for image in axis.images)
    assert right - left == pytest.approx(lower - upper)  # square, and above its reconstruction
    assert below > lower


def test_the_most_confident_mistakes_are_drawn_in_one_axis_with_both_classes(tmp_path):
    probabilities = np.full((5, 3), 0.1, np.float32)
    probabilities[range(5), [0, 2, 1, 2, 1]] = [0.9, 0.6, 0.7, 0.8, 0.5]  # the second, third and fifth are wrong
    figure = figures.confidently_wrong(COLOURED, LABELS, probabilities, ("zero", "one", "two"))
    (axis,) = figure.axes
    for image, index in zip(axis.images, (2, 1, 4), strict=True):
        np.testing.assert_array_equal(image.get_array(), COLOURED[index].transpose(1, 2, 0))
    labels = [text.get_text() for text in axis.texts]
    assert labels == ["one (0.70)\ntrue: two", "two (0.60)\ntrue: one", "one (0.50)\ntrue: zero"]
    assert "3 of 5 test images are misclassified" in figure.get_suptitle()
    none = figures.confidently_wrong(COLOURED, LABELS, np.eye(3, dtype=np.float32)[LABELS], ("zero", "one", "two"))
    assert "0 of 5" in none.get_suptitle()
    assert _ink(none, tmp_path) > 1


def test_a_confusion_matrix_counts_pairs_of_true_and_predicted_class():
    figure = figures.confusion_matrix(LABELS, np.array([0, 2, 2, 2, 1]), ("zero", "one", "two", "absent"))
    texts = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert texts == {(0, 0): "1", (1, 0): "1", (2, 1): "1", (2, 2): "2"}  # predicted, true
    np.testing.assert_allclose(figure.axes[0].images[0].get_array()[0], [0.5, 0.5, 0, 0])


def test_codes_are_drawn_by_class_with_the_class_name_at_their_centre(tmp_path):
    codes = np.arange(10, dtype=np.float32).reshape(5, 2)
    figure = figures.codes(codes, LABELS, ("zero", "one", "two", "absent"))
    (axis,) = figure.axes
    assert {text.get_text(): text.get_position() for text in axis.texts} == {
        "zero": (4, 5),
        "one": (2, 3),
        "two": (5, 6),
    }
    assert sum(len(drawn.get_offsets()) for drawn in axis.collections) == 5
    assert _ink(figure, tmp_path) > 1


def test_predictions_are_drawn_against_targets_with_their_error(tmp_path):
    targets = GENERATOR.normal(size=(20, 3)).astype(np.float32)
    figure = figures.estimates(targets + np.array([0, 0.5, 2], np.float32), targets)
    titles = [axis.get_title() for axis in figure.axes]
    assert [float(title.split()[-1]) for title in titles] == pytest.approx([0, 0.25, 4], abs=1e-6)
    np.testing.assert_allclose(figure.axes[0].collections[0].get_offsets(), targets[:, [0, 0]])
    assert _ink(figure, tmp_path) > 1


def test_decision_regions_have_a_panel_per_map_and_all_test_points(tmp_path):
    data = Circles(n_test=51)
    data.setup("test")
    side = np.linspace(-3, 3, 30, dtype=np.float32)
    inside = (side[:, None] ** 2 + side**2 < 2).astype(np.float32)
    maps = {"first": inside, "selected": np.full((30, 30), 0.3, np.float32)}  # also a map without a boundary
    figure = figures.decision_regions(maps, (-3, 3, -3, 3), data.test_set)
    assert _ink(figure, tmp_path) > 1
    *panels, bar = figure.axes
    assert [axis.get_title() for axis in panels] == ["first", "selected"]
    assert bar.get_ylabel() == "probability of class 1; black line: 0.5"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["test points of class 0", "test points of class 1"]


def test_learning_curves_of_a_regression_have_a_panel_per_error(tmp_path):
    names = [f"{split}/{kind}" for split in ("train", "val") for kind in ("loss", "loss_y0")]
    history = [(epoch, dict.fromkeys(names, 1 / (epoch + 1))) for epoch in range(3)]
    figure = figures.learning_curves(history, 2)
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "loss y0"]
    assert all(len(axis.lines) == 3 for axis in figure.axes)  # two splits, and the selected epoch
    assert _ink(figure, tmp_path) > 1


def test_only_figures_that_fit_the_outputs_are_drawn():
    classes, codes3 = ("a", "b", "c"), np.zeros((5, 3), np.float32)
    assert figures.output_figures(COLOURED, {}, classes) == {}
    assert figures.output_figures(COLOURED, {"codes": codes3, "labels": LABELS}, classes) == {}  # not a plane
    part = {"codes": codes3[:4, :2], "labels": LABELS[:4]}
    assert figures.output_figures(COLOURED, part, classes) == {}  # outputs of a part of the test set
    points = GENERATOR.normal(size=(5, 2)).astype(np.float32)
    logits = {"logits": np.eye(3, dtype=np.float32)[LABELS], "labels": LABELS}
    assert set(figures.output_figures(points, logits, classes)) == {"confusion_matrix"}
    assert set(figures.output_figures(COLOURED, logits, classes)) == {"confusion_matrix", "confidently_wrong"}

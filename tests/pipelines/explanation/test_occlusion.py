"""Occlusion: the probability of the class while a block is hidden."""

import json

import pytest
import torch
from torch import nn

from pipelines.explanation import occlusion
from pipelines.explanation.occlusion import count_on_object, minimum_position, probability_maps
from pipelines.tracking.store import Store


def by_loop(network, image_CHW, number, block, stride, fill):
    """Return the mean probability over the blocks that cover a pixel, one block after the other."""
    _, height, width = image_CHW.shape
    total, count = torch.zeros(height, width), torch.zeros(height, width)
    colour = image_CHW.mean((1, 2)) if fill == "mean" else torch.zeros(len(image_CHW))
    rows, columns = (range(0, size - block + stride, stride) for size in (height, width))
    for top in rows:
        for left in columns:
            hidden = image_CHW.clone()
            hidden[:, top : top + block, left : left + block] = colour[:, None, None]
            p = network(hidden[None]).softmax(1)[0, number]
            total[top : top + block, left : left + block] += p
            count[top : top + block, left : left + block] += 1
    return total / count


@pytest.mark.parametrize(
    ("block", "stride", "fill"), [(2, 1, "black"), (3, 1, "mean"), (4, 3, "black"), (3, 2, "mean"), (8, 1, "black")]
)
def test_maps_of_captum_are_those_of_a_loop_over_blocks(target, block, stride, fill):
    network, (images, classes) = target.pixels_to_logits(), target.test_set()
    pixels, classes = images[:2].float() / 255, classes[:2]
    maps = probability_maps(network, pixels, classes, block=block, stride=stride, fill=fill)
    expected = [by_loop(network, *each, block, stride, fill) for each in zip(pixels, classes, strict=True)]
    torch.testing.assert_close(maps, torch.stack(expected), atol=1e-5, rtol=0)


def test_maps_hold_probabilities_of_the_class_of_each_image(target):
    pixels = target.test_set()[0][:1].float() / 255
    maps = probability_maps(
        target.pixels_to_logits(), pixels.repeat(10, 1, 1, 1), torch.arange(10), block=3, stride=1, fill="black"
    )
    assert maps.min() >= -1e-6
    torch.testing.assert_close(maps.sum(0), torch.ones(28, 28), atol=1e-4, rtol=0)  # of all classes together


def test_the_minimum_is_at_the_pixel_that_the_network_depends_on():
    network = nn.Sequential(nn.Flatten(), nn.Linear(100, 2, bias=False)).requires_grad_(False)
    network[1].weight.zero_()[0, 45] = 5.0  # row 4, column 5 supports class 0
    maps = probability_maps(network, torch.ones(1, 1, 10, 10), torch.tensor([0]), block=3, stride=1, fill="black")
    assert minimum_position(maps[0]) == (4, 5)
    assert float(maps[0, 4, 5]) == pytest.approx(0.5)
    assert float(maps[0, 0, 0]) == pytest.approx(1 / (1 + torch.tensor(-5.0).exp().item()))


def test_minima_are_counted_on_the_object_and_where_a_block_touches_it():
    objects = torch.zeros(3, 6, 6, dtype=torch.bool)
    objects[:, 3, 3] = True
    counts = count_on_object(objects, [(3, 3), (4, 4), (1, 3)], block=3)
    assert counts == pytest.approx(
        {
            "on_object": 1,
            "on_object_by_chance": 3 / 36,
            "block_on_object": 2,  # around (4, 4), rows 3 to 5; around (1, 3), rows 0 to 2
            "block_on_object_by_chance": 3 * 9 / 36,
        }
    )


def test_a_block_of_even_size_covers_one_more_pixel_above_and_left():
    objects = torch.zeros(2, 9, 9, dtype=torch.bool)
    objects[:, 4, 4] = True
    assert count_on_object(objects, [(6, 6), (3, 3)], block=4)["block_on_object"] == 2
    assert count_on_object(objects, [(7, 6), (2, 3)], block=4)["block_on_object"] == 0


def read_numbers(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(next(outcome.folder.glob("*.json")).read_text())


def test_the_command_reports_the_minimum_and_whether_it_is_on_a_stroke(explain, target, explained_run):
    outcome = explain("occlusion", "--image", "12", "3", "--block", "3", "--stroke", "0.5")
    numbers = read_numbers(outcome)
    images, classes = target.test_set()
    pixels, classes = images[[12, 3]].float() / 255, classes[[12, 3]]
    maps = probability_maps(target.pixels_to_logits(), pixels, classes, block=3, stride=1)
    for row, map_HW, number, image in zip(numbers["images"], maps, classes, pixels, strict=True):
        assert (row["row"], row["column"]) == minimum_position(map_HW)
        assert row["lowest"] == pytest.approx(float(map_HW.min()), abs=1e-5)
        p = target.probabilities(image[None])[0, number]
        assert row["probability"] == pytest.approx(float(p), abs=1e-5)
    minima = [minimum_position(map_HW) for map_HW in maps]
    expected = count_on_object(pixels[:, 0] > 0.5, minima, 3)
    assert {key: numbers[key] for key in expected} == pytest.approx(expected)
    assert f"on_object {numbers['on_object']}, " in numbers["caption"]
    uri, run_id = explained_run
    (child,) = [child for child in Store(uri).children(run_id) if child.run_id in outcome.out]
    assert child.metrics["on_object"] == numbers["on_object"]


def test_boxes_define_the_object(explain, tmp_path):
    (tmp_path / "boxes.yaml").write_text("12: [0, 0, 27, 27]\n3: [14, 14, 14, 14]\n")
    numbers = read_numbers(explain("occlusion", "--image", "12", "3", "--boxes", tmp_path / "boxes.yaml"))
    assert numbers["on_object_by_chance"] == pytest.approx(1 + 1 / 28**2)
    assert numbers["on_object"] == 1 + ((numbers["images"][1]["row"], numbers["images"][1]["column"]) == (14, 14))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--block", "29"], "must be 1 to 28, the size of an image"),
        (["--block", "0"], "must be 1 to 28, the size of an image"),
        (["--block", "2", "--stride", "3"], "must be 1 to 2, the size of the block"),
        (["--stroke", "0.5", "--boxes", "x.yaml"], "exclude each other"),
        (["--boxes", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
    ],
)
def test_invalid_blocks_and_objects_are_the_users_mistake(explain, argv, message):
    outcome = explain("occlusion", "--image", "12", *argv)
    assert outcome.code == 2
    assert message in outcome.err
    assert not outcome.folder.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3: [0, 0, 1, 1]", "for image 12"),
        ("12: [0, 0, 1]", "for image 12"),
        ("[1]", "for each image"),
        ("a: [", "read"),
    ],
)
def test_missing_or_invalid_boxes_are_the_users_mistake(explain, tmp_path, text, message):
    (tmp_path / "boxes.yaml").write_text(text)
    outcome = explain("occlusion", "--image", "12", "--boxes", tmp_path / "boxes.yaml")
    assert outcome.code == 2
    assert "boxes.yaml" in outcome.err
    assert message in outcome.err


def test_the_range_of_a_map_has_as_many_digits_as_tell_its_ends_apart():
    assert occlusion._range(0.0213, 0.92) == "0.02 to\n0.92"
    assert occlusion._range(0.99911, 0.99942) == "0.9991 to\n0.9994"
    assert occlusion._range(1.0, 1.0) == "1.000000 to\n1.000000"

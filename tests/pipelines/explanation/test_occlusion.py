"""The probability of the class while a block is hidden."""

import json

import pytest
import torch
from torch import nn

from pipelines.explanation.occlusion import lowest, on_object, probability_maps
from pipelines.tracking.store import Store


def by_loop(network, image_CHW, number, block, stride, fill):
    """Mean probability over the blocks that cover a pixel, one block after the other."""
    _, height, width = image_CHW.shape
    added, counted = torch.zeros(height, width), torch.zeros(height, width)
    colour = image_CHW.mean((1, 2)) if fill == "mean" else torch.zeros(len(image_CHW))
    rows, columns = (range(0, size - block + stride, stride) for size in (height, width))
    for top in rows:
        for left in columns:
            hidden = image_CHW.clone()
            hidden[:, top : top + block, left : left + block] = colour[:, None, None]
            p = network(hidden[None]).softmax(1)[0, number]
            added[top : top + block, left : left + block] += p
            counted[top : top + block, left : left + block] += 1
    return added / counted


@pytest.mark.parametrize(
    ("block", "stride", "fill"), [(2, 1, "black"), (3, 1, "mean"), (4, 3, "black"), (3, 2, "mean"), (8, 1, "black")]
)
def test_maps_of_captum_are_those_of_a_loop_over_blocks(subject, block, stride, fill):
    network, (images, classes) = subject.whole(), subject.test_set()
    pixels, classes = images[:2].float() / 255, classes[:2]
    maps = probability_maps(network, pixels, classes, block=block, stride=stride, fill=fill)
    expected = [by_loop(network, *each, block, stride, fill) for each in zip(pixels, classes, strict=True)]
    torch.testing.assert_close(maps, torch.stack(expected), atol=1e-5, rtol=0)


def test_maps_hold_probabilities_of_the_class_of_each_image(subject):
    pixels = subject.test_set()[0][:1].float() / 255
    maps = probability_maps(
        subject.whole(), pixels.repeat(10, 1, 1, 1), torch.arange(10), block=3, stride=1, fill="black"
    )
    assert maps.min() >= -1e-6
    torch.testing.assert_close(maps.sum(0), torch.ones(28, 28), atol=1e-4, rtol=0)  # of all classes together


def test_the_minimum_lies_where_the_network_looks():
    network = nn.Sequential(nn.Flatten(), nn.Linear(100, 2, bias=False)).requires_grad_(False)
    network[1].weight.zero_()[0, 45] = 5.0  # row 4, column 5 speaks for class 0
    maps = probability_maps(network, torch.ones(1, 1, 10, 10), torch.tensor([0]), block=3, stride=1, fill="black")
    assert lowest(maps[0]) == (4, 5)
    assert float(maps[0, 4, 5]) == pytest.approx(0.5)
    assert float(maps[0, 0, 0]) == pytest.approx(1 / (1 + torch.tensor(-5.0).exp().item()))


def test_minima_are_counted_on_the_object_and_within_reach_of_a_block():
    objects = torch.zeros(3, 6, 6, dtype=torch.bool)
    objects[:, 3, 3] = True
    told = on_object(objects, [(3, 3), (4, 4), (1, 3)], block=3)
    assert told == pytest.approx(
        {
            "on_object": 1,
            "on_object_by_chance": 3 / 36,
            "block_on_object": 2,  # around (4, 4), rows 3 to 5; around (1, 3), rows 0 to 2
            "block_on_object_by_chance": 3 * 9 / 36,
        }
    )


def test_a_block_of_even_size_reaches_one_pixel_farther_up_and_left():
    objects = torch.zeros(2, 9, 9, dtype=torch.bool)
    objects[:, 4, 4] = True
    assert on_object(objects, [(6, 6), (3, 3)], block=4)["block_on_object"] == 2
    assert on_object(objects, [(7, 6), (2, 3)], block=4)["block_on_object"] == 0


def read(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(next(outcome.folder.glob("*.json")).read_text())


def test_the_command_tells_where_the_minimum_is_and_whether_on_a_stroke(explain, subject, looked_at):
    outcome = explain("occlusion", "--image", "12", "3", "--block", "3", "--stroke", "0.5")
    kept = read(outcome)
    images, classes = subject.test_set()
    pixels, classes = images[[12, 3]].float() / 255, classes[[12, 3]]
    maps = probability_maps(subject.whole(), pixels, classes, block=3, stride=1)
    for row, map_HW, number, image in zip(kept["images"], maps, classes, pixels, strict=True):
        assert (row["row"], row["column"]) == lowest(map_HW)
        assert row["lowest"] == pytest.approx(float(map_HW.min()), abs=1e-5)
        p = subject.probabilities(image[None])[0, number]
        assert row["probability"] == pytest.approx(float(p), abs=1e-5)
    minima = [lowest(map_HW) for map_HW in maps]
    expected = on_object(pixels[:, 0] > 0.5, minima, 3)
    assert {key: kept[key] for key in expected} == pytest.approx(expected)
    assert f"{kept['on_object']} of 2 minima" in kept["caption"]
    uri, run_id = looked_at
    (child,) = [child for child in Store(uri).children(run_id) if child.run_id in outcome.out]
    assert child.metrics["on_object"] == kept["on_object"]


def test_boxes_say_where_the_object_is(explain, tmp_path):
    (tmp_path / "boxes.yaml").write_text("12: [0, 0, 27, 27]\n3: [14, 14, 14, 14]\n")
    kept = read(explain("occlusion", "--image", "12", "3", "--boxes", tmp_path / "boxes.yaml"))
    assert kept["on_object_by_chance"] == pytest.approx(1 + 1 / 28**2)
    assert kept["on_object"] == 1 + ((kept["images"][1]["row"], kept["images"][1]["column"]) == (14, 14))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--block", "29"], "1 to 28, the size of an image"),
        (["--block", "0"], "1 to 28, the size of an image"),
        (["--block", "2", "--stride", "3"], "1 to 2, the size of the block"),
        (["--stroke", "0.5", "--boxes", "x.yaml"], "one of them"),
        (["--boxes", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
    ],
)
def test_blocks_and_objects_that_make_no_sense_are_the_users_mistake(explain, argv, said):
    outcome = explain("occlusion", "--image", "12", *argv)
    assert outcome.code == 2
    assert said in outcome.err
    assert not outcome.folder.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3: [0, 0, 1, 1]", "for image 12"),
        ("12: [0, 0, 1]", "for image 12"),
        ("[1]", "for each image"),
        ("a: [", "read"),
    ],
)
def test_boxes_that_are_missing_or_wrong_are_the_users_mistake(explain, tmp_path, text, said):
    (tmp_path / "boxes.yaml").write_text(text)
    outcome = explain("occlusion", "--image", "12", "--boxes", tmp_path / "boxes.yaml")
    assert outcome.code == 2
    assert "boxes.yaml" in outcome.err
    assert said in outcome.err

"""`litlab explain adversarial`."""

import json

import pytest
import torch
from PIL import Image

from pipelines.explanation.adversarial import attack
from pipelines.tracking.store import Store

NEAREST = {"steps": 60, "lr": 0.03, "strength": 1.0, "confidence": 0.6}


def read_all_numbers(outcome):
    assert outcome.code == 0, outcome.err
    return [json.loads(path.read_text()) for path in sorted(outcome.folder.glob("*.json"))]


def test_the_numbers_of_a_pair_are_the_networks_predictions_for_its_images(explain, target):
    (numbers,) = read_all_numbers(
        explain("adversarial", "--image", "12", "--target", "3", "--steps", "60", "--lr", "0.03")
    )
    images, classes = target.test_set()
    start, true = images[12:13].float() / 255, classes[12:13]
    changed = attack(target, start, true, torch.tensor([3]), "nearest", NEAREST).changed_NCHW
    (row,) = numbers["images"]
    before, after = target.probabilities(start)[0], target.probabilities(changed)[0]
    difference = changed - start
    assert row == {
        "image": 12,
        "class": target.classes[int(true)],
        "seen": target.classes[int(after.argmax())],
        "target": "3",
        "p_class_before": pytest.approx(float(before[true]), abs=1e-5),
        "p_class_after": pytest.approx(float(after[true]), abs=1e-4),
        "p_target_before": pytest.approx(float(before[3]), abs=1e-5),
        "p_target_after": pytest.approx(float(after[3]), abs=1e-4),
        "l2": pytest.approx(float(difference.norm()), abs=1e-4),
        "linf": pytest.approx(float(difference.abs().max()), abs=1e-4),
    }
    assert row["p_target_after"] >= 0.6 - 1e-5
    assert f"p_target_before {numbers['p_target_before']:.3g}, " in numbers["caption"]
    assert f"linf_mean {numbers['linf_mean']:.3g}, " in numbers["caption"]


@pytest.mark.slow
def test_the_table_is_one_image_of_each_class_to_every_other_class_and_reaches_them(explain, target, explained_run):
    outcome = explain("adversarial", "--table", "--steps", "40", "--lr", "0.03")
    (numbers,) = read_all_numbers(outcome)
    pairs = [(row["class"], row["target"]) for row in numbers["images"]]
    assert sorted(pairs) == sorted((a, b) for a in target.classes for b in target.classes if a != b)
    classes = target.test_set()[1]
    first = {name: int(torch.nonzero(classes == n)[0]) for n, name in enumerate(target.classes)}
    assert all(row["image"] == first[row["class"]] for row in numbers["images"])
    assert numbers["success_rate"] == sum(row["seen"] == row["target"] for row in numbers["images"]) / 90
    assert numbers["success_rate"] > 0.95
    uri, run_id = explained_run
    (child,) = [child for child in Store(uri).children(run_id) if child.run_id in outcome.out]
    assert child.metrics["success_rate"] == pytest.approx(numbers["success_rate"])
    with Image.open(next(outcome.folder.glob("*.png"))) as picture:
        assert min(picture.size) > 500


def test_success_in_8_bits_is_measured_on_the_rounded_image(target):
    images, classes = target.test_set()
    start, true, targets = images[:6].float() / 255, classes[:6], (classes[:6] + 3) % 10
    result = attack(target, start, true, targets, "nearest", {**NEAREST, "confidence": 0.5, "steps": 30})
    rounded = (result.changed_NCHW * 255).round().to(torch.uint8)
    assert result.rounded_N.equal(target.probabilities(rounded.float() / 255).argmax(1))


@pytest.mark.parametrize("method", ["fgsm", pytest.param("pgd", marks=pytest.mark.slow)])
def test_every_budget_is_an_explanation_and_is_respected_and_a_larger_one_has_more_effect(explain, method):
    small, large = read_all_numbers(
        explain("adversarial", "--method", method, "--images-per-class", "1", "--budget", "0.02", "0.3")
    )
    for numbers in (small, large):
        assert numbers["linf_max"] <= numbers["budget"] + 1e-6
        assert numbers["pairs"] == 10
        assert numbers["success_rate"] == sum(row["seen"] != row["class"] for row in numbers["images"]) / 10
    assert small["success_rate"] < large["success_rate"]
    assert small["p_own_after"] > large["p_own_after"]


def test_pgd_with_a_target_increases_its_probability(explain):
    (numbers,) = read_all_numbers(
        explain("adversarial", "--method", "pgd", "--image", "12", "--target", "3", "--budget", "0.3")
    )
    assert numbers["p_target_after"] > max(0.5, numbers["p_target_before"])


def test_the_true_class_of_an_image_is_not_a_target(explain, target):
    true = target.classes[int(target.test_set()[1][12])]
    other = "3" if true != "3" else "4"
    (numbers,) = read_all_numbers(explain("adversarial", "--image", "12", "--target", true, other, "--steps", "2"))
    assert [row["target"] for row in numbers["images"]] == [other]
    assert "this is the true class of the image" in explain("adversarial", "--image", "12", "--target", true).err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "needs --target C, or --table"),
        (["--method", "published"], "needs --target C, or --table"),
        (["--table", "--target", "3"], "selects images and targets itself"),
        (["--table", "--image", "3"], "selects images and targets itself"),
        (["--target", "10"], "0 to 9"),
        (["--target", "3", "--budget", "0.1"], "--budget does not apply to --method nearest"),
        (["--method", "fgsm", "--steps", "3"], "--steps does not apply to --method fgsm"),
        (["--method", "published", "--target", "3", "--confidence", "0.5"], "does not apply to --method published"),
        (["--method", "pgd", "--budget", "0.1", "0"], "must be above 0"),
        (["--target", "3", "--steps", "0"], "must be above 0"),
        (["--target", "3", "--confidence", "1"], "must be below 1"),
    ],
)
def test_contradicting_options_are_the_users_mistake(explain, argv, message):
    outcome = explain("adversarial", *argv)
    assert outcome.code == 2
    assert message in outcome.err
    assert not outcome.folder.exists()

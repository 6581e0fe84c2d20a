"""`litlab explain adversarial`."""

import json

import pytest
import torch
from PIL import Image

from pipelines.explanation.adversarial import attack
from pipelines.tracking.store import Store

NEAREST = {"steps": 60, "lr": 0.03, "strength": 1.0, "confidence": 0.6}


def read(outcome):
    assert outcome.code == 0, outcome.err
    return [json.loads(path.read_text()) for path in sorted(outcome.folder.glob("*.json"))]


def test_what_is_said_of_a_pair_is_what_the_network_says_of_its_images(explain, subject):
    (kept,) = read(explain("adversarial", "--image", "12", "--target", "3", "--steps", "60", "--lr", "0.03"))
    images, classes = subject.test_set()
    start, own = images[12:13].float() / 255, classes[12:13]
    changed = attack(subject, start, own, torch.tensor([3]), "nearest", NEAREST).changed_NCHW
    (row,) = kept["images"]
    before, after = subject.probabilities(start)[0], subject.probabilities(changed)[0]
    difference = changed - start
    assert row == {
        "image": 12,
        "class": subject.classes[int(own)],
        "seen": subject.classes[int(after.argmax())],
        "target": "3",
        "p_class_before": pytest.approx(float(before[own]), abs=1e-5),
        "p_class_after": pytest.approx(float(after[own]), abs=1e-4),
        "p_target_before": pytest.approx(float(before[3]), abs=1e-5),
        "p_target_after": pytest.approx(float(after[3]), abs=1e-4),
        "l2": pytest.approx(float(difference.norm()), abs=1e-4),
        "linf": pytest.approx(float(difference.abs().max()), abs=1e-4),
    }
    assert row["p_target_after"] >= 0.6 - 1e-5
    assert f"p(target) {kept['p_target_before']:.2g} before, {kept['p_target_after']:.3f} after" in kept["caption"]
    assert f"L-infinity {kept['linf_mean']:.3f} on average" in kept["caption"]


def test_the_table_is_one_image_of_each_class_to_every_other_class_and_reaches_them(explain, subject, looked_at):
    outcome = explain("adversarial", "--table", "--steps", "40", "--lr", "0.03")
    (kept,) = read(outcome)
    pairs = [(row["class"], row["target"]) for row in kept["images"]]
    assert sorted(pairs) == sorted((a, b) for a in subject.classes for b in subject.classes if a != b)
    classes = subject.test_set()[1]
    first = {name: int(torch.nonzero(classes == n)[0]) for n, name in enumerate(subject.classes)}
    assert all(row["image"] == first[row["class"]] for row in kept["images"])
    assert kept["success_rate"] == sum(row["seen"] == row["target"] for row in kept["images"]) / 90
    assert kept["success_rate"] > 0.95
    uri, run_id = looked_at
    (child,) = [child for child in Store(uri).children(run_id) if child.run_id in outcome.out]
    assert child.metrics["success_rate"] == pytest.approx(kept["success_rate"])
    with Image.open(next(outcome.folder.glob("*.png"))) as picture:
        assert min(picture.size) > 500


def test_success_in_8_bits_is_that_of_the_rounded_image(subject):
    images, classes = subject.test_set()
    start, own, wanted = images[:6].float() / 255, classes[:6], (classes[:6] + 3) % 10
    pairs = attack(subject, start, own, wanted, "nearest", {**NEAREST, "confidence": 0.5, "steps": 30})
    rounded = (pairs.changed_NCHW * 255).round().to(torch.uint8)
    assert pairs.rounded_N.equal(subject.probabilities(rounded.float() / 255).argmax(1))


@pytest.mark.parametrize("method", ["fgsm", "pgd"])
def test_every_budget_is_a_look_of_its_own_and_is_kept_and_a_larger_one_does_more(explain, method):
    small, large = read(
        explain("adversarial", "--method", method, "--images-per-class", "1", "--budget", "0.02", "0.3")
    )
    for kept in (small, large):
        assert kept["linf_max"] <= kept["budget"] + 1e-6
        assert kept["pairs"] == 10
        assert kept["success_rate"] == sum(row["seen"] != row["class"] for row in kept["images"]) / 10
        assert "another class than the image's own is seen" in kept["caption"]
    assert small["success_rate"] < large["success_rate"]
    assert small["p_own_after"] > large["p_own_after"]


def test_a_target_of_pgd_is_approached(explain):
    (kept,) = read(explain("adversarial", "--method", "pgd", "--image", "12", "--target", "3", "--budget", "0.3"))
    assert kept["p_target_after"] > max(0.5, kept["p_target_before"])


def test_an_image_that_is_wanted_as_its_own_class_is_left_out(explain, subject):
    own = subject.classes[int(subject.test_set()[1][12])]
    other = "3" if own != "3" else "4"
    (kept,) = read(explain("adversarial", "--image", "12", "--target", own, other, "--steps", "2"))
    assert [row["target"] for row in kept["images"]] == [other]
    assert "that is the class of the image" in explain("adversarial", "--image", "12", "--target", own).err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "needs --target C, or --table"),
        (["--method", "published"], "needs --target C, or --table"),
        (["--table", "--target", "3"], "chooses images and targets itself"),
        (["--table", "--image", "3"], "chooses images and targets itself"),
        (["--target", "10"], "0 to 9"),
        (["--target", "3", "--budget", "0.1"], "--budget does not go with --method nearest"),
        (["--method", "fgsm", "--steps", "3"], "--steps does not go with --method fgsm"),
        (["--method", "published", "--target", "3", "--confidence", "0.5"], "does not go with --method published"),
        (["--method", "pgd", "--budget", "0.1", "0"], "it must be above 0"),
        (["--target", "3", "--steps", "0"], "it must be above 0"),
        (["--target", "3", "--confidence", "1"], "below 1"),
    ],
)
def test_what_does_not_go_together_is_the_users_mistake(explain, argv, said):
    outcome = explain("adversarial", *argv)
    assert outcome.code == 2
    assert said in outcome.err
    assert not outcome.folder.exists()

"""Attacks: images changed so that a network predicts another class."""

import pytest
import torch
from torch import nn

from pipelines.explanation.attacks import PGD_STEP, AttackResult, _BestImages, fgsm_or_pgd, gradient_descent
from pipelines.explanation.settings import PUBLISHED_STRENGTH

COUNT = 6


@pytest.fixture(scope="module")
def pairs(target):
    """Network, pixels of test images, their true classes, and another class as target for each."""
    images, true_N = (part[:COUNT] for part in target.test_set())
    return target.pixels_to_logits(), images.float() / 255, true_N, (true_N + 1 + torch.arange(COUNT) % 9) % 10


def p_of(network, x, classes_N):
    return network(x).softmax(1).gather(1, classes_N[:, None])[:, 0]


def test_the_first_published_step_follows_the_published_gradient(pairs):
    network, start, _, targets = pairs
    x = start.clone().requires_grad_()
    objective = -PUBLISHED_STRENGTH * p_of(network, x, targets).sum() + (x - start).flatten(1).norm(dim=1).sum()
    (gradient,) = torch.autograd.grad(objective, x)
    expected = (start - 0.01 * gradient.sign()).clamp(0, 1)  # all components of Adam's first step have one size
    changed = gradient_descent(network, start, targets, objective="published", steps=1)
    torch.testing.assert_close(changed, expected)


def test_the_published_strength_is_converted_from_pixels_from_0_to_255():
    x, start, p = torch.rand(48), torch.rand(48), 0.3
    of_255 = -500_000 * p + (255 * x - 255 * start).norm()
    torch.testing.assert_close(of_255, 255 * (-PUBLISHED_STRENGTH * p + (x - start).norm()))


def test_a_larger_strength_of_the_published_objective_allows_a_larger_distance(pairs):
    network, start, _, targets = pairs
    lengths = []
    for strength in (0.03, 3.0):
        changed = gradient_descent(network, start, targets, objective="published", strength=strength, steps=60)
        lengths.append(float((changed - start).flatten(1).norm(dim=1).mean()))
    assert 0 < lengths[0] < 0.5 * lengths[1]


def test_nearest_reaches_its_confidence_at_no_larger_distance_than_needed(pairs):
    network, start, _, targets = pairs
    changed = {p: gradient_descent(network, start, targets, confidence=p, steps=100, lr=0.02) for p in (0.5, 0.9)}
    lengths = {p: (x - start).flatten(1).norm(dim=1) for p, x in changed.items()}
    for p, x in changed.items():
        assert (p_of(network, x, targets) >= p - 1e-5).all()
    assert (p_of(network, changed[0.5], targets) < 0.6).all()
    assert (lengths[0.5] < lengths[0.9]).all()


def test_the_best_image_is_the_nearest_that_reaches_the_target_or_else_the_most_probable():
    start = torch.zeros(2, 1, 1, 4)
    best = _BestImages(start, 0.5)
    odds = torch.tensor([[0.1, 0.1], [0.6, 0.3], [0.9, 0.2], [0.4, 0.01]]).logit()
    lengths = torch.tensor([[0.1, 0.1], [0.9, 0.5], [0.7, 0.2], [0.3, 0.9]])
    for odds_N, length_N in zip(odds, lengths, strict=True):
        x = torch.zeros_like(start)
        x[:, 0, 0, 0] = length_N
        best.update(x, odds_N)
    torch.testing.assert_close(best.x[:, 0, 0, 0], torch.tensor([0.7, 0.5]))


@pytest.mark.parametrize("objective", ["nearest", "published"])
def test_a_pair_has_the_same_result_in_a_batch_and_alone(pairs, objective):
    network, start, _, targets = pairs
    together = gradient_descent(network, start, targets, objective=objective, steps=8)
    alone = [
        gradient_descent(network, start[n : n + 1], targets[n : n + 1], objective=objective, steps=8)
        for n in range(COUNT)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "attack",
    [
        lambda *to: gradient_descent(*to, objective="published", steps=30, lr=0.1),
        lambda *to: gradient_descent(*to, steps=30, lr=0.1),
        lambda *to: fgsm_or_pgd(*to, budget=0.3, targeted=True),
        lambda *to: fgsm_or_pgd(*to, budget=0.3, targeted=False, steps=10),
    ],
    ids=["published", "nearest", "fgsm", "pgd"],
)
def test_pixels_stay_in_range_and_images_and_network_are_not_modified(pairs, attack):
    network, start, _, targets = pairs
    images, weights = start.clone(), {name: value.clone() for name, value in network.state_dict().items()}
    changed = attack(network, start, targets)
    assert start.min() == 0  # so that leaving the range would be easy
    assert start.max() == 1
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert not changed.requires_grad
    assert not changed.equal(start)
    assert start.equal(images)
    assert all(value.equal(weights[name]) for name, value in network.state_dict().items())
    assert all(value.grad is None for value in network.parameters())
    assert not network.training


@pytest.mark.parametrize("targeted", [False, True])
def test_fgsm_adds_the_sign_of_the_gradient_of_the_cross_entropy(pairs, targeted):
    network, start, true, targets = pairs
    classes = targets if targeted else true
    x = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(network(x), classes, reduction="sum"), x)
    step = -0.05 if targeted else 0.05
    expected = (start + step * gradient.sign()).clamp(0, 1)
    torch.testing.assert_close(fgsm_or_pgd(network, start, classes, budget=0.05, targeted=targeted), expected)


def test_fgsm_changes_images_of_which_the_network_is_almost_certain():
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False)).requires_grad_(False)
    network[1].weight.copy_(torch.tensor([[1.875] * 16, [0.0] * 16]))
    start = torch.full((1, 1, 4, 4), 0.5)  # p = 1 - 3e-7, gradients of 6e-7
    changed = fgsm_or_pgd(network, start, torch.tensor([0]), budget=0.1, targeted=False)
    torch.testing.assert_close(changed, torch.full_like(start, 0.4))


def test_pgd_uses_its_budget_and_has_more_effect_than_fgsm(pairs):
    network, start, true, _ = pairs
    loss = {}
    for steps in (1, 10):
        changed = fgsm_or_pgd(network, start, true, budget=0.1, targeted=False, steps=steps)
        assert float((changed - start).abs().max()) == pytest.approx(0.1, abs=1e-6)
        loss[steps] = float(nn.functional.cross_entropy(network(changed), true))
    assert PGD_STEP > 1
    assert loss[10] > loss[1]


def test_the_summary_has_rates_means_and_maxima():
    start = torch.zeros(2, 1, 2, 2)
    changed = torch.tensor([[0.3, 0.0, 0.0, 0.4], [0.0, 0.0, 0.0, 0.1]]).reshape(2, 1, 2, 2)
    before = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.7, 0.2]])
    after = torch.tensor([[0.35, 0.4, 0.25], [0.1, 0.3, 0.6]])
    true, targets, rounded = torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([1, 1])
    summary = AttackResult(start, true, targets, changed, before, after, rounded).summarize()
    assert summary == pytest.approx(
        {
            "success_rate": 0.5,
            "success_rate_above_half": 0.0,
            "success_rate_8_bits": 0.5,
            "p_own_before": 0.75,
            "p_own_after": 0.325,
            "p_target_before": 0.1,
            "p_target_after": 0.25,
            "l2_mean": 0.3,
            "l2_max": 0.5,
            "rms_mean": 0.15,
            "linf_mean": 0.25,
            "linf_max": 0.4,
        }
    )


def test_without_a_target_any_class_but_the_true_one_counts():
    p = torch.tensor([[0.4, 0.6, 0.0], [0.1, 0.7, 0.2], [0.1, 0.7, 0.2], [0.1, 0.7, 0.2]])
    nothing, true = torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])
    summary = AttackResult(nothing, true, None, nothing, p, p, p.argmax(1)).summarize()
    assert summary["success_rate"] == summary["success_rate_above_half"] == summary["success_rate_8_bits"] == 0.75
    assert "p_target_after" not in summary

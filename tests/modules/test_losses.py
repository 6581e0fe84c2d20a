"""The two losses and their gradients, against the formulas of the textbook."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from modules.base import quadratic_loss
from modules.linear import LinearClassifier


@pytest.fixture
def logits() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (3 * torch.randn(7, 5, dtype=torch.float64, generator=generator)).requires_grad_()


LABELS = torch.tensor([0, 4, 2, 2, 1, 3, 0])


def test_quadratic_loss_is_half_the_mean_squared_distance(logits):
    total = 0.0
    for z, label in zip(logits.tolist(), LABELS.tolist(), strict=True):
        exponentials = torch.tensor(z, dtype=torch.float64).exp()
        p = (exponentials / exponentials.sum()).tolist()
        total += sum((p_k - (k == label)) ** 2 for k, p_k in enumerate(p)) / 2
    assert quadratic_loss(logits, LABELS).item() == pytest.approx(total / 7, rel=1e-12)


@pytest.mark.parametrize(("logit", "expected"), [(50.0, 0.0), (-50.0, 1.0)])
def test_quadratic_loss_runs_from_zero_to_one(logit, expected):
    logits = torch.tensor([[logit, 0.0]], dtype=torch.float64)
    assert float(quadratic_loss(logits, torch.tensor([0]))) == pytest.approx(expected, abs=1e-12)


def _gradient(loss, logits: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss(logits, LABELS), logits)
    return gradient


def test_the_gradient_of_the_quadratic_loss_is_the_textbooks(logits):
    p, y = logits.detach().softmax(1), F.one_hot(LABELS, 5)
    e = p - y
    expected = p * (e - (p * e).sum(1, keepdim=True)) / 7
    torch.testing.assert_close(_gradient(quadratic_loss, logits), expected, rtol=1e-12, atol=1e-15)
    assert torch.autograd.gradcheck(lambda z: quadratic_loss(z, LABELS), logits)


@pytest.mark.parametrize("name", ["cross_entropy", "quadratic"])
def test_the_training_step_returns_the_loss_that_was_chosen(name, logits):
    """The linear model is made to pass its logits through: its input is the logits, its weights the identity."""
    model = LinearClassifier((1, 1, 5), 5, loss=name).double()
    with torch.no_grad():
        model.net[1].weight.copy_(torch.eye(5))
        model.net[1].bias.zero_()
    loss = model.training_step((logits.view(7, 1, 1, 5), LABELS), 0)
    (gradient,) = torch.autograd.grad(loss, logits)
    p, y = logits.detach().softmax(1), F.one_hot(LABELS, 5)
    if name == "cross_entropy":
        expected_loss, expected_gradient = -p.log()[range(7), LABELS].mean(), (p - y) / 7
    else:
        expected_loss, expected_gradient = (p - y).square().sum() / 14, _gradient(quadratic_loss, logits)
    torch.testing.assert_close(loss.detach(), expected_loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-15)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="hinge"):
        LinearClassifier((1, 1, 5), 5, loss="hinge")

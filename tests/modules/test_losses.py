"""The two losses and their gradients, compared with textbook formulas; label smoothing."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.functions import Functions
from modules.base import quadratic_loss
from modules.functions import FunctionRegressor
from modules.linear import LinearClassifier
from modules.mlp import MLP


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
def test_quadratic_loss_ranges_from_zero_to_one(logit, expected):
    logits = torch.tensor([[logit, 0.0]], dtype=torch.float64)
    assert float(quadratic_loss(logits, torch.tensor([0]))) == pytest.approx(expected, abs=1e-12)


def _gradient(loss, logits: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss(logits, LABELS), logits)
    return gradient


def test_the_gradient_of_the_quadratic_loss_equals_its_formula(logits):
    p, y = logits.detach().softmax(1), F.one_hot(LABELS, 5)
    e = p - y
    expected = p * (e - (p * e).sum(1, keepdim=True)) / 7
    torch.testing.assert_close(_gradient(quadratic_loss, logits), expected, rtol=1e-12, atol=1e-15)
    assert torch.autograd.gradcheck(lambda z: quadratic_loss(z, LABELS), logits)


@pytest.mark.parametrize("name", ["cross_entropy", "quadratic"])
def test_the_training_step_returns_the_selected_loss(name, logits):
    """The inputs are the logits: the weights of the linear model are the identity."""
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


def test_the_error_for_an_unknown_loss_names_it():
    with pytest.raises(ValueError, match="hinge"):
        LinearClassifier((1, 1, 5), 5, loss="hinge")


@pytest.mark.parametrize("options", [{}, {"loss": "quadratic"}, {"label_smoothing": 0.2}])
def test_the_sum_has_the_gradient_of_the_mean_times_the_batch_size_and_logs_the_mean(options, logits):
    gradients, logged = [], []
    for reduction in ("mean", "sum"):
        torch.manual_seed(0)
        model = LinearClassifier((1, 1, 5), 5, reduction=reduction, **options).double()
        loss = model.training_step((logits.detach().view(7, 1, 1, 5), LABELS), 0)
        gradients.append(torch.autograd.grad(loss, model.net[1].weight)[0])
        logged.append(float(model.train_metrics.compute()["train/loss"]))
    torch.testing.assert_close(gradients[1], 7 * gradients[0], rtol=1e-12, atol=0)
    assert logged[0] == logged[1]


def test_sgd_on_the_sum_takes_the_steps_of_a_learning_rate_times_the_batch_size_on_the_mean(make_trainer):
    weights = []
    for reduction, lr in (("mean", 0.01), ("sum", 0.0002)):
        torch.manual_seed(0)
        optimizer = partial(torch.optim.SGD, lr=lr)
        model, data = FunctionRegressor((4,), reduction=reduction, optimizer=optimizer), Functions(batch_size=50)
        make_trainer(max_epochs=1).fit(model, data)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-6)


def test_the_error_for_an_unknown_reduction_names_its_key():
    with pytest.raises(ValueError, match=r"model\.reduction is 'none'; it must be mean or sum"):
        _mlp(reduction="none")


def _mlp(**options) -> MLP:
    torch.manual_seed(0)
    return MLP((1, 28, 28), 10, hidden=(32,), **options)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_label_smoothing_affects_the_training_loss_and_not_the_logged_loss(smoothing, digits, make_trainer):
    """The training loss is (1 - s) times the loss of the label plus s times the mean loss over all classes."""
    model = _mlp(label_smoothing=smoothing)
    images, labels = digits.normalize(digits.train_set.inputs), digits.train_set.targets
    with torch.no_grad():
        log_p = model(images).double().log_softmax(1)
    label_loss, mean_loss = -log_p[range(250), labels].mean(), -log_p.mean()
    model.train_metrics.reset()
    loss = model.training_step((images, labels), 0)
    assert float(loss.detach()) == pytest.approx(float((1 - smoothing) * label_loss + smoothing * mean_loss), rel=1e-6)
    assert float(model.train_metrics.compute()["train/loss"]) == pytest.approx(float(label_loss), rel=1e-6)
    outputs = model.validation_step((images, labels), 0)
    assert set(outputs) == {"logits", "labels"}
    assert float(model.val_metrics.compute()["val/loss"]) == pytest.approx(float(label_loss), rel=1e-6)


def test_label_smoothing_lowers_the_confidence_on_the_training_set(digits, make_trainer):
    confidences = []
    for smoothing in (0.0, 0.2):
        model = _mlp(label_smoothing=smoothing)
        make_trainer(max_epochs=20).fit(model, digits)
        logits = model.eval()(digits.normalize(digits.train_set.inputs))
        confidences.append(float(logits.detach().softmax(1).amax(1).mean()))
    assert confidences[1] < confidences[0] - 0.1


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": -0.1},
        {"label_smoothing": 1.0},
        {"label_smoothing": float("nan")},
        {"label_smoothing": 0.1, "loss": "quadratic"},
    ],
)
def test_the_error_for_invalid_label_smoothing_names_its_key(options):
    with pytest.raises(ValueError, match=rf"model\.label_smoothing is {options['label_smoothing']}"):
        _mlp(**options)

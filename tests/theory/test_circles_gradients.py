"""Backpropagation by hand through the network of the circles experiments.

Forward: h~ = x W_hid^T + b_hid, h = tanh(h~), logits = h W_out^T + b_out, p = softmax(logits); y is the one-hot label.
The loss is softmax cross-entropy, averaged over the batch. The mean enters once, as a division by B at the logits.
All other formulas are those for a sum over examples, which is computed by the products with ^T. The last tests correct
the formulas of the report.

Shapes: B batch size, I inputs, H hidden units, K classes.
"""

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

SIZES = st.fixed_dictionaries(
    {"B": st.integers(1, 8), "I": st.integers(1, 4), "H": st.integers(1, 6), "K": st.integers(2, 5)}
)
SEEDS = st.integers(0, 2**32 - 1)
assert_equal = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


def network(seed: int, sizes: dict[str, int]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Return random weights, inputs and labels."""
    B, I, H, K = (sizes[name] for name in "BIHK")  # noqa: E741
    torch.manual_seed(seed)
    shapes = {"W_hid": (H, I), "b_hid": (H,), "W_out": (K, H), "b_out": (K,)}
    weights = {name: torch.randn(shape, requires_grad=True) for name, shape in shapes.items()}
    return weights, torch.randn(B, I), torch.randint(K, (B,))


def gradients_by_hand(weights: dict[str, Tensor], x_BI: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
    """Return the gradients of logits, pre-activations, weights and biases by their formulas."""
    W_hid, b_hid, W_out, b_out = (tensor.detach() for tensor in weights.values())
    h_BH = torch.tanh(x_BI @ W_hid.T + b_hid)
    exponentials_BK = torch.exp(h_BH @ W_out.T + b_out)
    p_BK = exponentials_BK / exponentials_BK.sum(1, keepdim=True)
    y_BK = F.one_hot(labels_B, len(b_out))

    d_logits_BK = (p_BK - y_BK) / len(x_BI)  # / B: the mean over the batch
    d_h_tilde_BH = (d_logits_BK @ W_out) * (1 - h_BH**2)  # tanh' = 1 - tanh^2
    return {
        "logits": d_logits_BK,
        "h_tilde": d_h_tilde_BH,
        "W_out": d_logits_BK.T @ h_BH,
        "b_out": d_logits_BK.sum(0),
        "W_hid": d_h_tilde_BH.T @ x_BI,
        "b_hid": d_h_tilde_BH.sum(0),
    }


def gradients_by_autograd(weights: dict[str, Tensor], x_BI: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
    h_tilde_BH = F.linear(x_BI, weights["W_hid"], weights["b_hid"])
    logits_BK = F.linear(h_tilde_BH.tanh(), weights["W_out"], weights["b_out"])
    tensors = {"logits": logits_BK, "h_tilde": h_tilde_BH, **weights}
    gradients = torch.autograd.grad(F.cross_entropy(logits_BK, labels_B), list(tensors.values()))
    return dict(zip(tensors, gradients, strict=True))


@given(seed=SEEDS, sizes=SIZES)
def test_the_formulas_equal_the_gradients_of_autograd(seed, sizes):
    """With D = (p - y) / B for the logits: dW_out = D^T h, dh~ = (D W_out) * (1 - h^2), dW_hid = dh~^T x."""
    weights, x, labels = network(seed, sizes)
    by_autograd = gradients_by_autograd(weights, x, labels)
    by_hand = gradients_by_hand(weights, x, labels)
    assert by_hand.keys() == by_autograd.keys()
    for name, gradient in by_hand.items():
        assert_equal(gradient, by_autograd[name])


@given(seed=SEEDS, sizes=SIZES)
def test_the_gradient_of_a_batch_is_the_mean_of_its_examples_gradients(seed, sizes):
    """The formulas with B = 1 have no division; their mean over the examples is the gradient of the batch."""
    weights, x, labels = network(seed, sizes)
    batch = gradients_by_hand(weights, x, labels)
    singles = [gradients_by_hand(weights, x[b : b + 1], labels[b : b + 1]) for b in range(len(x))]
    for name in weights:
        assert_equal(batch[name], torch.stack([single[name] for single in singles]).mean(0))


@given(seed=SEEDS, sizes=SIZES)
def test_a_small_gradient_step_decreases_the_loss_by_lr_times_the_squared_gradient(seed, sizes):
    """To first order L(w - lr g) = L(w) - lr |g|^2: a check that uses neither autograd nor the formulas."""
    weights, x, labels = network(seed, sizes)
    gradients = gradients_by_hand(weights, x, labels)

    def loss(lr: float) -> float:
        w = {name: tensor.detach() - lr * gradients[name] for name, tensor in weights.items()}
        h = torch.tanh(F.linear(x, w["W_hid"], w["b_hid"]))
        return float(F.cross_entropy(F.linear(h, w["W_out"], w["b_out"]), labels))

    square = sum(float(gradients[name].square().sum()) for name in weights)
    lr = 1e-5  # central difference: the error is of the order of lr^2
    assert abs((loss(-lr) - loss(lr)) / (2 * lr) - square) <= 1e-6 * (1 + square)


@given(h_tilde=st.floats(-5, 5).filter(lambda value: abs(value) > 0.1))
def test_the_derivative_of_h_is_1_minus_h_squared_not_1_minus_h_tilde_squared(h_tilde):
    """For h = tanh(h~), dh/dh~ = 1 - h^2, which is positive; the printed 1 - h~^2 is negative where |h~| > 1."""
    z = torch.tensor(h_tilde, requires_grad=True)
    (slope,) = torch.autograd.grad(z.tanh(), z)
    assert math.isclose(float(slope), 1 - math.tanh(h_tilde) ** 2, abs_tol=1e-12)
    assert not math.isclose(float(slope), 1 - h_tilde**2, abs_tol=1e-5)


@given(seed=SEEDS, sizes=SIZES)
def test_the_gradient_of_h_tilde_is_an_elementwise_product_not_a_dot_product(seed, sizes):
    """Each of the H pre-activations has its own gradient; a dot product returns only their sum."""
    weights, x, labels = network(seed, sizes)
    d_h_tilde_BH = gradients_by_autograd(weights, x, labels)["h_tilde"]
    d_h_BH = gradients_by_hand(weights, x, labels)["logits"] @ weights["W_out"].detach()
    slope_BH = 1 - F.linear(x, weights["W_hid"], weights["b_hid"]).detach().tanh() ** 2
    assert_equal(d_h_BH * slope_BH, d_h_tilde_BH)
    dot_products_B = torch.stack([d_h @ slope for d_h, slope in zip(d_h_BH, slope_BH, strict=True)])
    assert_equal(dot_products_B, d_h_tilde_BH.sum(1))


def circles(points: int) -> tuple[Tensor, Tensor]:
    """Return points on two circles around 0, with -x for each x, and which circle each lies on."""
    angles = 2 * math.pi * torch.arange(points) / points
    circle = torch.stack([angles.cos(), angles.sin()], dim=1)
    return torch.cat([circle, 2 * circle]), torch.arange(2).repeat_interleave(points)


@pytest.mark.parametrize(("bias", "lowest", "highest"), [(True, 1.0, 1.0), (False, 0.0, 0.75)])
def test_without_the_bias_of_h_tilde_no_training_separates_two_circles(bias, lowest, highest):
    """The formula of h~ lacks its bias, without which at most three quarters of the points can be right.

    Then h(-x) = -h(x), so the difference d of the logits has d(x) + d(-x) = 2c with a constant c. If c is positive, at
    least one of two opposite points is assigned to the first circle, even if both lie on the second; if c is negative,
    at least one is assigned to the second.
    """
    torch.manual_seed(0)
    x, labels = circles(32)
    model = nn.Sequential(nn.Linear(2, 10, bias=bias), nn.Tanh(), nn.Linear(10, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
    accuracy = float((model(x).argmax(1) == labels).double().mean())
    assert lowest <= accuracy <= highest

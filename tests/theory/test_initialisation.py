"""Weight initialisation: why units must differ, and which scale of the weights preserves the scale of activations.

Shapes: B examples, I inputs, H hidden units, K classes.
"""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

SEEDS = st.integers(0, 2**32 - 1)
B, I, H, K = 12, 3, 5, 4  # noqa: E741
Activation = Callable[[Tensor], Tensor]
activations = pytest.mark.parametrize("activation", [torch.relu, torch.tanh])


# --- symmetry ---------------------------------------------------------------------------------------------------------


def data(seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(B, I), torch.randint(K, (B,))


def identical_units(row_I: Tensor, bias: float, column_K: Tensor) -> list[Tensor]:
    """Return a network with identical hidden units: the same input weights, bias and output weights."""
    weights = [row_I.repeat(H, 1), torch.full((H,), bias), column_K[:, None].repeat(1, H), torch.zeros(K)]
    return [weight.requires_grad_() for weight in weights]


def random_units() -> list[Tensor]:
    weights = [torch.randn(H, I), torch.zeros(H), torch.randn(K, H), torch.zeros(K)]
    return [weight.requires_grad_() for weight in weights]


def gradient_steps(
    weights: list[Tensor], x_BI: Tensor, labels_B: Tensor, activation: Activation, steps: int, lr: float = 0.1
) -> list[Tensor]:
    """Run full-batch gradient descent on softmax cross-entropy: w <- w - lr dL/dw."""
    for _ in range(steps):
        W1, b1, W2, b2 = weights
        loss = F.cross_entropy(F.linear(activation(F.linear(x_BI, W1, b1)), W2, b2), labels_B)
        gradients = torch.autograd.grad(loss, weights)
        weights = [(w - lr * g).detach().requires_grad_() for w, g in zip(weights, gradients, strict=True)]
    return weights


def distinct_units(weights: list[Tensor]) -> int:
    """Count hidden units that differ in a weight by more than 1e-10, which is far above rounding errors."""
    W1, b1, W2, _ = weights
    units = torch.cat([W1, b1[:, None], W2.T], dim=1).detach()
    distinct: list[Tensor] = []
    for unit in units:
        if all((unit - other).abs().max() > 1e-10 for other in distinct):
            distinct.append(unit)
    return len(distinct)


@activations
@given(seed=SEEDS, steps=st.integers(1, 30))
def test_identical_units_stay_identical(activation, seed, steps):
    """Units that start identical have the same gradient in every step, so they stay identical."""
    x, labels = data(seed)
    before = identical_units(torch.randn(I), float(torch.randn(())), torch.randn(K))
    after = gradient_steps(before, x, labels, activation, steps)
    assert distinct_units(after) == 1


@activations
@pytest.mark.parametrize("constant", [0.0, 0.1, 0.5, 1.0])
def test_a_layer_with_zero_or_constant_weights_acts_as_one_unit(activation, constant):
    """With equal weights, all H hidden units compute the same function, however long the network is trained."""
    x, labels = data(0)
    before = identical_units(torch.full((I,), constant), 0.0, torch.full((K,), constant))
    after = gradient_steps(before, x, labels, activation, steps=50)
    assert distinct_units(after) == 1
    learns = not torch.equal(before[0], after[0])  # like a network with one hidden unit
    assert learns == (constant > 0)


@activations
def test_zero_weights_with_bias_1_learn_but_stay_symmetric(activation):
    """With bias 1 the units are not dead, so that gradients reach all weights, but they are the same for every unit."""
    x, labels = data(0)
    before = identical_units(torch.zeros(I), 1.0, torch.zeros(K))
    after = gradient_steps(before, x, labels, activation, steps=50)
    assert not any(torch.equal(*weights) for weights in zip(before, after, strict=True))
    assert distinct_units(after) == 1


@activations
@given(seed=SEEDS, steps=st.integers(0, 30))
def test_random_weights_break_the_symmetry(activation, seed, steps):
    """With random weights, all H units are different, and stay different during training."""
    x, labels = data(seed)
    assert distinct_units(gradient_steps(random_units(), x, labels, activation, steps)) == H


@activations
def test_a_small_difference_breaks_the_symmetry(activation):
    """The symmetry is unstable: one unit that is perturbed by 0.001 ends more than 0.1 away from the others."""
    x, labels = data(0)
    weights = identical_units(torch.full((I,), 0.5), 0.5, torch.full((K,), 0.5))
    with torch.no_grad():
        weights[0][0] += 1e-3
    after = gradient_steps(weights, x, labels, activation, steps=600)
    W1 = after[0].detach()
    assert (W1[1:] - W1[0]).abs().amax() > 0.1


@given(seed=SEEDS, hidden=st.lists(st.integers(1, 6), min_size=1, max_size=3), steps=st.integers(1, 5))
def test_a_relu_network_of_zeros_learns_only_its_last_bias(seed, hidden, steps):
    """With all weights 0 every gradient is exactly 0 except that of the last bias, which is the mean of p - y.

    The activations are 0, so the gradient of the last weights is (p - y)^T 0; the last weights are 0, so no gradient
    is propagated back.
    """
    x, labels = data(seed)
    labels[:] = labels[0]  # so that the mean of p - y is not 0
    layers = [nn.Linear(n_in, n_out) for n_in, n_out in zip([I, *hidden], [*hidden, K], strict=True)]
    network = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))[:-1]
    parameters = list(network.parameters())
    for parameter in parameters:
        nn.init.zeros_(parameter)
    for step in range(steps):
        p = network(x).detach().softmax(1)
        *other_gradients, last_bias = torch.autograd.grad(F.cross_entropy(network(x), labels), parameters)
        assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in other_gradients)
        torch.testing.assert_close(last_bias, (p - F.one_hot(labels, K)).mean(0), rtol=1e-10, atol=1e-10)
        assert step > 0 or last_bias.abs().amin() >= 1 / K - 1e-12  # p is initially 1/K
        with torch.no_grad():
            parameters[-1] -= 0.1 * last_bias


# --- scale ------------------------------------------------------------------------------------------------------------

WIDTH, DEPTH, NETWORKS = 256, 5, 64


def he(n_in: int, n_out: int) -> float:
    """Standard deviation of the weights for ReLU: sqrt(2 / n_in). The 2 compensates for the half that ReLU zeroes."""
    return math.sqrt(2 / n_in)


def xavier(n_in: int, n_out: int) -> float:
    """Standard deviation of weights for linear units: sqrt(2 / (n_in + n_out)), for the forward and backward pass."""
    return math.sqrt(2 / (n_in + n_out))


def std_001(n_in: int, n_out: int) -> float:
    return 0.01


def growth(std: Callable[[int, int], float], activation: Activation, size: float) -> Tensor:
    """Return mean square of the activations after DEPTH layers / mean square of the input, for many random networks."""
    torch.manual_seed(0)
    ratios = []
    for _ in range(NETWORKS):
        x = h = size * torch.randn(WIDTH)
        for _ in range(DEPTH):
            h = activation(std(WIDTH, WIDTH) * torch.randn(WIDTH, WIDTH) @ h)
        ratios.append(h.square().mean() / x.square().mean())
    return torch.stack(ratios)


def identity(x: Tensor) -> Tensor:
    return x


@pytest.mark.parametrize(
    ("std", "activation", "size", "factor", "spread"),
    [
        pytest.param(he, torch.relu, 1.0, 1.0, 5, id="he-relu"),
        pytest.param(xavier, identity, 1.0, 1.0, 2, id="xavier-linear"),
        pytest.param(xavier, torch.tanh, 1e-3, 1.0, 2, id="xavier-small-tanh"),
        pytest.param(xavier, torch.relu, 1.0, 1 / 2, 5, id="xavier-relu-halves"),
        pytest.param(std_001, identity, 1.0, WIDTH * 0.01**2, 2, id="std_001-linear-shrinks"),
        pytest.param(std_001, torch.relu, 1.0, WIDTH * 0.01**2 / 2, 5, id="std_001-relu-shrinks"),
    ],
)
def test_the_mean_square_of_the_activations_changes_by_a_known_factor_per_layer(std, activation, size, factor, spread):
    """He preserves the mean square through ReLU layers, Xavier through linear ones; with a std of 0.01 it shrinks.

    One layer of width n with weights of variance v maps a vector h to n independent normal variables g of variance
    v |h|^2. So the mean square is multiplied by n v times the mean of n independent g^2 (linear) or relu(g)^2, for g
    of variance 1. The mean of g^2 is 1 and its variance 2; the mean of relu(g)^2 is 1/2, and its variance relative to
    the squared mean (3/2 - 1/4) / (1/4) = 5. These are `factor` and `spread`. Layers are independent, so the product
    over DEPTH layers has mean factor^DEPTH and relative variance (1 + spread / n)^DEPTH - 1, which is divided by
    NETWORKS for the mean over networks. The tolerance is four standard errors, which is 16 % for ReLU and 10 % for the
    others. For tanh of inputs near 1e-3 the relative decrease of 2e-6 per layer is negligible.
    """
    standard_error = math.sqrt(((1 + spread / WIDTH) ** DEPTH - 1) / NETWORKS)
    ratio = growth(std, activation, size).mean() / factor**DEPTH
    assert abs(float(ratio) - 1) <= 4 * standard_error < 0.17


def test_five_layers_with_a_std_of_0_01_shrink_the_mean_square_below_one_billionth():
    """After five ReLU layers the mean square is near 1 with He, and about 3e-10 with a std of 0.01."""
    assert 0.8 < float(growth(he, torch.relu, 1.0).mean()) < 1.2
    assert float(growth(std_001, torch.relu, 1.0).mean()) < 1e-9


@given(seed=SEEDS, n_in=st.integers(1, 30), n_out=st.integers(1, 30))
def test_torch_initialises_by_these_formulas(seed, n_in, n_out):
    """`kaiming_normal_` and `xavier_normal_` are normal variables times the standard deviations above."""
    for init, std in ((nn.init.kaiming_normal_, he), (nn.init.xavier_normal_, xavier)):
        torch.manual_seed(seed)
        options = {"nonlinearity": "relu"} if std is he else {}
        weight = init(torch.empty(n_out, n_in), **options)
        torch.manual_seed(seed)
        torch.testing.assert_close(weight, std(n_in, n_out) * torch.empty(n_out, n_in).normal_(), rtol=1e-10, atol=0)

"""Depth instead of width: on an interval, a deep network of width three equals any network with one hidden ReLU layer.

The shallow network is a sum of n hinges, f(x) = c + sum over i of a[i] relu(w[i] x + b[i]), with one hidden unit for
each. The deep network adds one hinge per hidden layer, in n hidden layers of three units:

- the first passes on x as x - low, which is not negative on [low, high], so that ReLU does not change it;
- the second computes one hinge, relu(w[i] x + b[i]);
- the third stores the sum of the previous hinges. It may be negative, and ReLU would set it to 0. So it is stored as
  sum + shift, where shift is the largest amount that hinges with negative a can subtract on the interval. A hinge has
  its maximum at one of the two ends. The last layer, which has no ReLU, subtracts the shift.

The proof in the report is repaired here: it passes x through a ReLU, has no unit for the hinge, updates the same unit
in both branches of its recursion, and never sets the third. The last tests show what each of these breaks.
"""

import math
from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

Hinge = tuple[float, float, float]  # a, w, b
Layer = tuple[Tensor, Tensor]  # weight and bias

NUMBERS = st.floats(-10, 10)
HINGES = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=12)


def relu(x: float) -> float:
    return max(x, 0.0)


def shallow(x: float, hinges: list[Hinge], c: float) -> float:
    """f(x) = c + sum over i of a[i] relu(w[i] x + b[i])."""
    return c + sum(a * relu(w * x + b) for a, w, b in hinges)


def safe_shift(hinges: list[Hinge], low: float, high: float) -> float:
    """Return a shift such that no partial sum of the hinges is below -shift on [low, high]."""
    return sum(-a * max(relu(w * low + b), relu(w * high + b)) for a, w, b in hinges if a < 0)


def deep(hinges: list[Hinge], c: float, low: float, shift: float) -> list[Layer]:
    """Return the layers of the deep network. Rows are the three units: x - low, the hinge, the sum + shift."""
    _, w, b = hinges[0]
    layers = [(torch.tensor([[1.0], [w], [0.0]]), torch.tensor([-low, b, shift]))]
    for (a_previous, _, _), (_, w, b) in pairwise(hinges):
        weight = torch.tensor([[1.0, 0.0, 0.0], [w, 0.0, 0.0], [0.0, a_previous, 1.0]])
        layers.append((weight, torch.tensor([0.0, w * low + b, 0.0])))
    a_last = hinges[-1][0]
    layers.append((torch.tensor([[0.0, a_last, 1.0]]), torch.tensor([c - shift])))
    return layers


def run(layers: list[Layer], x_N: Tensor) -> Tensor:
    """Apply the layers, with ReLU after every layer but the last."""
    h = x_N[:, None]
    for weight, bias in layers[:-1]:
        h = (h @ weight.T + bias).relu()
    weight, bias = layers[-1]
    return (h @ weight.T + bias)[:, 0]


def scale(hinges: list[Hinge], c: float, low: float, high: float) -> float:
    """Return the magnitude of the added terms: rounding errors are relative to it, not to the sum, which may cancel."""
    max_x = max(abs(low), abs(high))
    return abs(c) + sum(abs(a) * (abs(w) * max_x + abs(b)) for a, w, b in hinges)


@given(hinges=HINGES, c=NUMBERS, low=NUMBERS, length=st.floats(0.01, 20))
def test_three_units_per_layer_are_enough(hinges, c, low, length):
    """On any interval the shallow network of n hidden units and the deep one of width 3 are equal, to 1e-9."""
    high = low + length
    kinks = [-b / w for _, w, b in hinges if w and low < -b / w < high]
    x = torch.cat([torch.linspace(low, high, 50), torch.tensor([*kinks, low, high])]).clamp(low, high)
    layers = deep(hinges, c, low, safe_shift(hinges, low, high))
    expected = torch.tensor([shallow(value, hinges, c) for value in x.tolist()])
    error = (run(layers, x) - expected).abs().max()
    assert float(error) <= 1e-9 * scale(hinges, c, low, high) + 1e-300


@given(hinges=HINGES, c=NUMBERS)
def test_every_hidden_layer_has_three_units_and_there_is_one_per_hinge(hinges, c):
    """The width is 3 for any n, and the depth is n: the network becomes deeper, not wider."""
    layers = deep(hinges, c, low=-1.0, shift=safe_shift(hinges, -1.0, 1.0))
    hidden = [weight.shape[0] for weight, _ in layers[:-1]]
    assert hidden == [3] * len(hinges)
    assert layers[-1][0].shape == (1, 3)


@given(hinges=HINGES, low=NUMBERS, length=st.floats(0.01, 20), position=st.floats(0, 1))
def test_the_shift_bounds_every_partial_sum(hinges, low, length, position):
    """On the interval no partial sum of the hinges is below -shift, so ReLU never truncates the sum."""
    high = low + length
    x = min(low + position * length, high)
    shift = safe_shift(hinges, low, high)
    for count in range(len(hinges) + 1):
        assert shallow(x, hinges[:count], 0.0) + shift >= -1e-12 * scale(hinges, 0.0, low, high)


def test_without_the_shift_the_sum_is_truncated():
    """f(x) = -relu(x) + 2 relu(x - 1) is -1 at x = 1; without the shift the deep network returns 0."""
    hinges, x = [(-1.0, 1.0, 0.0), (2.0, 1.0, -1.0)], torch.tensor([1.0])
    assert shallow(1.0, hinges, 0.0) == -1.0
    assert run(deep(hinges, 0.0, low=-2.0, shift=0.0), x).tolist() == [0.0]
    assert run(deep(hinges, 0.0, low=-2.0, shift=safe_shift(hinges, -2.0, 2.0)), x).tolist() == [-1.0]


def test_outside_the_interval_the_networks_differ():
    """Below low the first unit is 0, so the deep network is constant where the shallow one is not."""
    hinges = [(1.0, -1.0, 0.0), (1.0, -2.0, 0.0)]
    layers = deep(hinges, 0.0, low=-1.0, shift=safe_shift(hinges, -1.0, 1.0))
    assert math.isclose(float(run(layers, torch.tensor([-1.0]))), shallow(-1.0, hinges, 0.0))
    assert shallow(-3.0, hinges, 0.0) == 9.0
    assert float(run(layers, torch.tensor([-3.0]))) == 3.0 + 2.0  # the input of the first hinge is x, then x - low


def test_a_relu_does_not_pass_on_a_negative_input():
    """Without x - low, the second hinge sees relu(x) = 0 instead of x = -2, so relu(-x) is 0 instead of 2."""
    hinges, x = [(0.0, 1.0, 0.0), (1.0, -1.0, 0.0)], torch.tensor([-2.0])
    assert shallow(-2.0, hinges, 0.0) == 2.0
    assert run(deep(hinges, 0.0, low=0.0, shift=0.0), x).tolist() == [0.0]
    assert run(deep(hinges, 0.0, low=-2.0, shift=0.0), x).tolist() == [2.0]


def test_a_hinge_cannot_be_added_without_a_unit_of_its_own():
    """One ReLU of the sum, relu(1 + 2 (x - 1)), is not the sum with the hinge, 1 + 2 relu(x - 1): at x = 0, 0 and 1."""
    x = 0.0
    assert relu(1.0 + 2.0 * (x - 1.0)) == 0.0
    assert 1.0 + 2.0 * relu(x - 1.0) == 1.0


def test_if_the_third_unit_is_never_set_only_the_last_hinge_counts():
    """The third unit carries the sum of the previous hinges; without it relu(x) + relu(x - 1) becomes relu(x - 1)."""
    hinges, x = [(1.0, 1.0, 0.0), (1.0, 1.0, -1.0)], torch.tensor([3.0])
    layers = deep(hinges, 0.0, low=-1.0, shift=0.0)
    assert run(layers, x).tolist() == [3.0 + 2.0]
    for weight, bias in layers[:-1]:
        weight[2], bias[2] = 0.0, 0.0
    assert run(layers, x).tolist() == [2.0]


def test_a_sum_in_one_unit_is_truncated_where_hinges_with_negative_a_prevail():
    """If both signs of a update one unit, ReLU truncates it: relu(x) - 2 relu(x) + 2 relu(x - 1) is -1 at x = 1."""
    hinges, x = [(1.0, 1.0, 0.0), (-2.0, 1.0, 0.0), (2.0, 1.0, -1.0)], torch.tensor([1.0])
    assert shallow(1.0, hinges, 0.0) == -1.0
    assert run(deep(hinges, 0.0, low=-2.0, shift=0.0), x).tolist() == [0.0]

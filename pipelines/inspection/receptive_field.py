"""Receptive fields: intervals of input rows and columns that each value depends on, propagated through torch functions.

The *reach* of a tensor has its shape. It belongs to a batch of 2A blank examples, where A is the number of the input's
spatial axes: example 2a holds -lo, and example 2a+1 hi, of the positions lo to hi on axis a that the value depends on.
-inf means that it depends on nothing, as padding does. So the union of two reaches is their maximum, a convolution or
pooling is a sliding maximum, and a function that only moves values applies to a reach as it does to the values.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map

from pipelines.inspection.ops import OpCall, SlidingWindow, tensors

NOTHING = -torch.inf
_BAND = 2.0**32
"""Added once per example, so that values of another example are recognised."""

_POINTWISE = """abs add alpha_dropout batch_norm bool celu clamp clip clone contiguous cos detach div double dropout
dropout1d dropout2d dropout3d elu eq exp feature_dropout float ge gelu gt half hardsigmoid hardswish hardtanh le
leaky_relu lerp log log1p logsigmoid lt masked_fill maximum minimum mish mul ne neg pow prelu radd rdiv reciprocal
relu relu6 requires_grad rmul rpow rsqrt rsub selu sigmoid sign silu sin softplus softsign sqrt square sub tanh to
true_divide type type_as where"""
_MOVES = """T chunk data expand flatten flip gather getitem index_select mT movedim narrow permute pixel_shuffle
pixel_unshuffle ravel repeat repeat_interleave reshape roll select split squeeze swapaxes swapdims t tensor_split tile
transpose unbind unflatten unsqueeze view"""
_JOINS = "cat concat concatenate stack hstack vstack"
_REDUCTIONS = "amax amin argmax argmin logsumexp mean prod sum"
POINTWISE = frozenset(_POINTWISE.split())


def input_reach(input_shape: tuple[int, ...]) -> Tensor:
    """Return the reach of the input, of which each position depends on itself; shape (2A, *input_shape).

    Args:
        input_shape: Channels and then spatial axes, or one axis alone, whose entries count as positions.
    """
    sizes = input_shape[1:] or input_shape
    reach = torch.empty(2 * len(sizes), *input_shape, dtype=torch.float64)
    for axis, size in enumerate(sizes):
        position = torch.arange(size).view(-1, *[1] * (len(sizes) - axis - 1))
        reach[2 * axis], reach[2 * axis + 1] = -position, position
    return reach + _bands(reach)


def _bands(reach: Tensor) -> Tensor:
    return (torch.arange(len(reach), dtype=torch.float64) * _BAND).view(-1, *[1] * (reach.ndim - 1))


def intervals(reach: Tensor, axes: int) -> tuple[Tensor, Tensor] | None:
    """Return the first and last position that each value depends on, each of shape (A, *value).

    inf and -inf where it depends on nothing. None if the tensor has lost the order of the examples.
    """
    if reach.ndim < 2 or len(reach) != 2 * axes:
        return None
    position = reach - _bands(reach)
    if (position.isfinite() & (position.abs() > _BAND / 2)).any():
        return None
    return -position[0::2], position[1::2]


def field_size(reach: Tensor, axes: int) -> tuple[int, ...] | None:
    """Return the largest receptive field of a tensor's values, in positions per axis; None if it is unknown."""
    bounds = intervals(reach, axes)
    if bounds is None:
        return None
    lo, hi = bounds
    return tuple(int(size) for size in (hi - lo + 1).clamp(min=0).flatten(1).amax(1))


def propagate(call: OpCall) -> list[Tensor | None]:
    """Return the reach of each tensor that a call returns; None for functions and uses that have no rule."""
    outputs = tensors(call.result)
    reaches = tree_leaves(RULES[call.name](call)) if call.name in RULES else [None]
    reaches = reaches * len(outputs) if len(reaches) == 1 else reaches
    pairs = zip(reaches, outputs, strict=True)
    return [reach if reach is not None and reach.shape == value.shape else None for reach, value in pairs]


def _union(reaches: list[Tensor], value: Tensor) -> Tensor:
    return reduce(torch.maximum, reaches).broadcast_to(value.shape)


def _slide(reach: Tensor, axis: int, positions: Tensor) -> Tensor:
    """Return the union, for each output position on an axis, of its input positions, of shape (outputs, positions).

    Positions outside the input are padding.
    """
    before, size, behind = reach.shape[:axis], reach.shape[axis], reach.shape[axis + 1 :]
    padded = torch.cat([reach, torch.full_like(reach.narrow(axis, 0, 1), NOTHING)], axis)
    index = positions.where((positions >= 0) & (positions < size), size)
    return padded.index_select(axis, index.flatten()).view(*before, *index.shape, *behind).amax(axis + 1)


def _windowed(call: OpCall) -> Tensor | None:
    """Convolution, transposed convolution, pooling."""
    window, value, source = SlidingWindow.of(call), tensors(call.result)[0], call.given["input"]
    reach = call.only_reach(source)
    assert window is not None
    if reach is None or reach.ndim != 2 + len(window.kernel):
        return None
    groups = source.shape[1] if "pool" in call.name else call.given.get("groups", 1)
    reach = reach.reshape(len(reach), groups, -1, *reach.shape[2:]).amax(2)
    for axis, size in enumerate(value.shape[2:]):
        reach = _slide(reach, axis + 2, _positions(window, axis, size, transposed="transpose" in call.name))
    return reach.repeat_interleave(value.shape[1] // groups, 1)


def _positions(window: SlidingWindow, axis: int, size: int, *, transposed: bool) -> Tensor:
    """Return the input positions of each of `size` outputs; shape (size, kernel)."""
    output = torch.arange(size)[:, None]
    offset = torch.arange(window.kernel[axis]) * window.dilation[axis] - window.padding_before(axis)
    stride = window.stride[axis]
    if not transposed:
        return output * stride + offset
    position = output - offset
    return (position // stride).where(position % stride == 0, -1)


def _adapted(call: OpCall) -> Tensor | None:
    """Pooling to a given size: output p of m covers the inputs floor(p n / m) to ceil((p + 1) n / m) - 1."""
    value, reach = tensors(call.result)[0], call.only_reach(call.given["input"])
    if reach is None or reach.ndim != 2 + int(call.name.removesuffix("_with_indices")[-2]):
        return None
    for axis, m in enumerate(value.shape[2:], 2):
        n, output = reach.shape[axis], torch.arange(m)[:, None]
        position = output * n // m + torch.arange(n)
        reach = _slide(reach, axis, position.where(position < -(-(output + 1) * n // m), -1))
    return reach


def _padded(call: OpCall) -> Tensor | None:
    given = call.given
    reach, mode = call.only_reach(given["input"]), given.get("mode", "constant")
    if reach is None:
        return None
    return F.pad(reach, given["pad"], value=NOTHING) if mode == "constant" else F.pad(reach, given["pad"], mode=mode)


def _resized(call: OpCall) -> Any:
    return _moved(call) if call.given.get("mode", "nearest") in ("nearest", "nearest-exact") else None


def _pointwise(call: OpCall) -> Tensor | None:
    if call.name == "batch_norm" and call.given.get("training"):
        return None  # statistics of the batch
    return _union(list(call.reaches.values()), call.result)


def _moved(call: OpCall) -> Any:
    """Apply the function to the reach."""
    first = call.given.get("input")
    if (reach := call.only_reach(first)) is None:
        return None
    stand_in = reach.contiguous()  # else a view that the value allows may fail
    args, kwargs = tree_map(lambda leaf: stand_in if leaf is first else leaf, (call.args, call.kwargs))
    return call.func(*args, **kwargs)


def _joined(call: OpCall) -> Any:
    """Apply the function to the reaches; tensors that do not depend on the input reach nothing."""

    def swap(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        reach = call.reach(leaf)
        return torch.full(leaf.shape, NOTHING, dtype=torch.float64) if reach is None else reach

    args, kwargs = tree_map(swap, (call.args, call.kwargs))
    return call.func(*args, **kwargs)


def _spread(call: OpCall, dims: Any) -> Tensor | None:
    """Functions that mix all values along these axes, whether they keep the axes or not."""
    reach, value = call.only_reach(call.given.get("input")), tensors(call.result)[0]
    if reach is None:
        return None
    union = reach.amax(dims, keepdim=True)
    return union.reshape(value.shape) if union.numel() == value.numel() else union.broadcast_to(value.shape)


def _reduced(call: OpCall) -> Tensor | None:
    dim = call.given.get("dim")
    return _spread(call, () if dim is None else dim)


def _normalized(call: OpCall) -> Tensor | None:
    return _spread(call, tuple(range(-len(call.given["normalized_shape"]), 0)))


def _paired(call: OpCall) -> Tensor | None:
    """A bilinear form depends on all of both vectors."""
    return _union([reach.amax(-1, keepdim=True) for reach in call.reaches.values()], call.result)


def _multiplied(call: OpCall) -> Tensor | None:
    """Matrix products a @ b, or added to something, depend on a row of a and a column of b."""
    *added, a, b = tensors((call.args, call.kwargs))
    if min(a.ndim, b.ndim) < 2:
        return None
    parts = [reach for value in added if (reach := call.reach(value)) is not None]
    for value, axis in ((a, -1), (b, -2)):
        if (reach := call.reach(value)) is not None:
            parts.append(reach.amax(axis, keepdim=True))
    return _union(parts, call.result)


RULES: dict[str, Callable[[OpCall], Any]] = {
    **dict.fromkeys(POINTWISE, _pointwise),
    **dict.fromkeys(_MOVES.split(), _moved),
    **dict.fromkeys(_JOINS.split(), _joined),
    **dict.fromkeys([*_REDUCTIONS.split(), "softmax", "log_softmax"], _reduced),
    **dict.fromkeys(["matmul", "mm", "bmm", "addmm", "baddbmm"], _multiplied),
    **{f"{kind}{axes}d": _windowed for kind in ("conv", "conv_transpose", "max_pool", "avg_pool") for axes in "123"},
    **{f"max_pool{axes}d_with_indices": _windowed for axes in "123"},
    **{f"adaptive_{kind}_pool{axes}d": _adapted for kind in ("max", "avg") for axes in "123"},
    **{f"adaptive_max_pool{axes}d_with_indices": _adapted for axes in "123"},
    "linear": lambda call: _spread(call, -1),
    "bilinear": _paired,
    "layer_norm": _normalized,
    "pad": _padded,
    "interpolate": _resized,
}

"""Calls of torch functions: their arguments by name, their sliding windows, their multiply-adds."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torch.utils._pytree import tree_leaves

SIGNATURES = {
    "conv": "input weight bias stride padding dilation groups",
    "conv_transpose": "input weight bias stride padding output_padding groups dilation",
    "max_pool": "input kernel_size stride padding dilation",
    "avg_pool": "input kernel_size stride padding",
    "pad": "input pad mode value",
    "interpolate": "input size scale_factor mode",
    "batch_norm": "input running_mean running_var weight bias training",
    "layer_norm": "input normalized_shape",
    "linear": "input weight bias",
    "bilinear": "input1 input2 weight bias",
    "scaled_dot_product_attention": "query key value",
}
_FAMILY = re.compile(r"(\w+?)([123]d)?(?:_with_indices)?")
_WINDOWED = {"conv", "conv_transpose", "max_pool", "avg_pool"}


@dataclass(frozen=True)
class OpCall:
    """One call of a torch function.

    Attributes:
        name: Without underscores, equal for a function, a method and an operator: "add", "getitem".
        func: The function, to call it again.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        result: What it returned.
        reaches: Of the tensors in it that depend on the input, by the tensor's id; see `receptive_field`.
    """

    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    reaches: dict[int, Tensor]

    @property
    def family(self) -> str:
        """The name without the number of axes: conv_transpose for conv_transpose2d."""
        match = _FAMILY.fullmatch(self.name)
        return match[1] if match else self.name

    @property
    def given(self) -> dict[str, Any]:
        """The arguments by name; for functions that are not in SIGNATURES, input and dim."""
        names = SIGNATURES.get(self.family, "input dim").split()
        return dict(zip(names, self.args, strict=False)) | self.kwargs

    def reach(self, value: Any) -> Tensor | None:
        """Return the reach of an argument; None if it does not depend on the input."""
        return self.reaches.get(id(value))

    def only_reach(self, value: Any) -> Tensor | None:
        """Return the reach of an argument; None too if another argument depends on the input."""
        return self.reach(value) if len(self.reaches) == 1 else None


@dataclass(frozen=True)
class SlidingWindow:
    """The sliding window of a convolution or pooling, per axis. Padding alone has no kernel, and an entry per side."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | Literal["same", "valid"]
    dilation: tuple[int, ...]

    @classmethod
    def of(cls, call: OpCall) -> "SlidingWindow | None":
        """Return the window of a call; None for other functions, and for adaptive pooling."""
        given = call.given
        if call.family == "pad":
            return cls((), (), tuple(given["pad"]), ())
        if call.family not in _WINDOWED:
            return None
        axes = int(call.name.removesuffix("_with_indices")[-2])
        kernel = given["weight"].shape[2:] if "weight" in given else given["kernel_size"]
        stride = given.get("stride") or (kernel if "pool" in call.family else 1)
        padding = given.get("padding", 0)
        return cls(
            _per_axis(kernel, axes),
            _per_axis(stride, axes),
            padding if padding in ("same", "valid") else _per_axis(padding, axes),
            _per_axis(given.get("dilation", 1), axes),
        )

    def padding_before(self, axis: int) -> int:
        """Return the padding on the side of the first position."""
        if isinstance(self.padding, str):
            return self.dilation[axis] * (self.kernel[axis] - 1) // 2 if self.padding == "same" else 0
        return self.padding[axis]


def _per_axis(value: Any, axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def tensors(values: Any) -> list[Tensor]:
    """Return the tensors in nested lists, tuples and dicts."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def multiply_adds(call: OpCall) -> int:
    """Return the multiply-adds of a convolution or matrix product, for the complete batch; 0 for any other function."""
    return COSTS[call.name](call) if call.name in COSTS else 0


def _per_output(call: OpCall) -> int:
    """Each output is a sum over one filter."""
    return int(call.result.numel() * call.given["weight"][0].numel())


def _per_input(call: OpCall) -> int:
    """Each input is multiplied by one filter."""
    return int(call.given["input"].numel() * call.given["weight"][0].numel())


def _product(call: OpCall) -> int:
    """A @ b, or that added to something: each output is a sum over a row of a."""
    *_, a, _b = tensors((call.args, call.kwargs))
    return int(call.result.numel() * a.shape[-1])


def _attention(call: OpCall) -> int:
    """Each query is multiplied by each key, and each weight by each value."""
    return int((call.given["query"].numel() + call.result.numel()) * call.given["key"].shape[-2])


COSTS: dict[str, Callable[[OpCall], int]] = {
    **{f"conv{axes}d": _per_output for axes in (1, 2, 3)},
    **{f"conv_transpose{axes}d": _per_input for axes in (1, 2, 3)},
    **dict.fromkeys(["linear", "bilinear"], _per_output),
    **dict.fromkeys(["matmul", "mm", "bmm", "mv", "dot", "addmm", "addmv", "baddbmm"], _product),
    "scaled_dot_product_attention": _attention,
}

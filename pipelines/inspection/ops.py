"""A call of a torch function: its arguments by name, its window, its multiply-adds."""

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
    """One call of a torch function, and the reaches of those tensors in it that depend on the input."""

    name: str
    """Without underscores, equal for a function, a method and an operator: "add", "getitem"."""
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    reaches: dict[int, Tensor]
    """By the tensor's id; see `receptive`."""

    @property
    def family(self) -> str:
        """The name without the number of axes: conv_transpose of conv_transpose2d."""
        match = _FAMILY.fullmatch(self.name)
        return match[1] if match else self.name

    @property
    def given(self) -> dict[str, Any]:
        """The arguments by name; of functions that are not in SIGNATURES, input and dim."""
        names = SIGNATURES.get(self.family, "input dim").split()
        return dict(zip(names, self.args, strict=False)) | self.kwargs

    def reach(self, value: Any) -> Tensor | None:
        """What an argument sees; None if it does not depend on the input."""
        return self.reaches.get(id(value))

    def only(self, value: Any) -> Tensor | None:
        """What an argument sees, if nothing else in the call depends on the input."""
        return self.reach(value) if len(self.reaches) == 1 else None


@dataclass(frozen=True)
class SlidingWindow:
    """What a convolution or pooling looks at, per axis. Mere padding has no kernel, and an entry for each side."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | Literal["same", "valid"]
    dilation: tuple[int, ...]

    @classmethod
    def of(cls, call: OpCall) -> "SlidingWindow | None":
        """The window of a call; None for other functions, and for pooling that adapts to the size of its input."""
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

    def before(self, axis: int) -> int:
        """Padding on the side of the first position."""
        if isinstance(self.padding, str):
            return self.dilation[axis] * (self.kernel[axis] - 1) // 2 if self.padding == "same" else 0
        return self.padding[axis]


def _per_axis(value: Any, axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def tensors(values: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples and dicts."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def multiply_adds(call: OpCall) -> int:
    """Of a convolution or matrix product, for the whole batch; 0 of any other function."""
    return COSTS[call.name](call) if call.name in COSTS else 0


def _per_output(call: OpCall) -> int:
    """Each output is a sum over one filter."""
    return int(call.result.numel() * call.given["weight"][0].numel())


def _per_input(call: OpCall) -> int:
    """Each input is multiplied by one filter."""
    return int(call.given["input"].numel() * call.given["weight"][0].numel())


def _product(call: OpCall) -> int:
    """Of a and b, perhaps added to something: each output is a sum over a row of a."""
    *_, a, _b = tensors((call.args, call.kwargs))
    return int(call.result.numel() * a.shape[-1])


def _attention(call: OpCall) -> int:
    """Each query meets each key, and each weight each value."""
    return int((call.given["query"].numel() + call.result.numel()) * call.given["key"].shape[-2])


COSTS: dict[str, Callable[[OpCall], int]] = {
    **{f"conv{axes}d": _per_output for axes in (1, 2, 3)},
    **{f"conv_transpose{axes}d": _per_input for axes in (1, 2, 3)},
    **dict.fromkeys(["linear", "bilinear"], _per_output),
    **dict.fromkeys(["matmul", "mm", "bmm", "mv", "dot", "addmm", "addmv", "baddbmm"], _product),
    "scaled_dot_product_attention": _attention,
}

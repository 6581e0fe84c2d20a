"""Sliding windows of convolutions and pooling, as they are called."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

SIGNATURES = {
    "conv": "input weight bias stride padding dilation",
    "conv_transpose": "input weight bias stride padding output_padding groups dilation",
    "max_pool": "input kernel_size stride padding dilation",
    "avg_pool": "input kernel_size stride padding",
}


@dataclass(frozen=True)
class SlidingWindow:
    """The sliding window of a convolution or pooling, per axis. Padding alone has no kernel, and an entry per side."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | Literal["same", "valid"]
    dilation: tuple[int, ...]

    @classmethod
    def of(cls, function: str, args: Sequence[Any], kwargs: dict[str, Any]) -> "SlidingWindow | None":
        """Return the window of a call; None for other functions, and for adaptive pooling.

        Args:
            function: Its name, such as "max_pool2d".
            args: Its positional arguments.
            kwargs: Its keyword arguments.
        """
        if function == "pad":
            return cls((), (), tuple(kwargs["pad"] if "pad" in kwargs else args[1]), ())
        match = re.fullmatch(r"(\w+)([123])d(_with_indices)?", function)
        if match is None or match[1] not in SIGNATURES:
            return None
        given = dict(zip(SIGNATURES[match[1]].split(), args, strict=False)) | kwargs
        kernel = given["weight"].shape[2:] if "weight" in given else given["kernel_size"]
        stride = given.get("stride") or (kernel if "pool" in function else 1)
        padding, dilation, axes = given.get("padding", 0), given.get("dilation", 1), int(match[2])
        padding = padding if padding in ("same", "valid") else _per_axis(padding, axes)
        return cls(_per_axis(kernel, axes), _per_axis(stride, axes), padding, _per_axis(dilation, axes))


def _per_axis(value: Any, axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values

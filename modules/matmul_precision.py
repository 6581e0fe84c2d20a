"""torch's precision of float32 matrix products, whichever of torch's two interfaces has set it.

torch refuses to read it through the older one, `torch.get_float32_matmul_precision`, once the newer one,
`torch.backends.cuda.matmul.fp32_precision`, was used.
"""

from collections.abc import Callable
from functools import partial

import torch

EXACT = "highest"


def matmul_precision(device: torch.device) -> str:
    """Return the name in the older interface, or if that cannot tell, in the newer one; EXACT for full float32."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        backend = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
        precision: str = backend.matmul.fp32_precision
        return EXACT if precision in ("none", "ieee") else precision


def use_tensor_float32() -> Callable[[], None]:
    """Multiply float32 matrices on NVIDIA GPUs as TensorFloat-32; return a function that restores what was set."""
    matmul = torch.backends.cuda.matmul
    try:
        restore = partial(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
    except RuntimeError:  # only the newer interface can restore what it has set
        restore = partial(setattr, matmul, "fp32_precision", matmul.fp32_precision)
        matmul.fp32_precision = "tf32"
        return restore
    torch.set_float32_matmul_precision("high")
    return restore

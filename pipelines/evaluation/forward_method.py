"""The method of a module that `--forward` names, and what it makes of images."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from pipelines.config.example_batch import describe
from pipelines.runtime.errors import UserError
from pipelines.runtime.text import kind_and_message

BATCH_SIZE = 64  # images that are mapped at once


def method_of(model: LightningModule, name: str = "forward") -> Callable[..., Any]:
    """Return the method that maps inputs to outputs.

    Raises:
        UserError: The module has no such method.
    """
    method = getattr(model, name, None)
    if not callable(method) or (name == "forward" and not is_overridden("forward", model)):
        raise UserError(
            f"{type(model).__name__} has no method {name}: --forward NAME names the one that maps inputs to outputs"
        )
    return method  # type: ignore[no-any-return]


def logits_of(model: LightningModule, name: str, inputs: Tensor) -> Tensor:
    """Return the logits of inputs, shape (N, K), by the method of a name.

    Raises:
        UserError: There is no such method, or it does not map the inputs to logits.
    """
    method = method_of(model, name)
    try:
        with torch.no_grad():
            parts = [_checked(method(part)) for part in torch.split(inputs, BATCH_SIZE)]
    except Exception as error:  # of the module
        raise UserError(
            f"{type(model).__name__}.{name} does not map {describe(inputs)} to the logits of classes "
            f"({kind_and_message(error)}); --input KEY names the part of a batch that holds images, --forward NAME the "
            "method"
        ) from error
    return torch.cat(parts)


def _checked(outputs: Any) -> Tensor:
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or outputs.shape[1] < 2:
        raise TypeError(f"it returns {describe(outputs)}, not logits of shape (N, K)")
    return outputs

"""Softmax regression."""

import math
from typing import Any, final

from torch import Tensor, nn

from modules.base import Classifier
from modules.layers import Init, initialize


@final
class LinearClassifier(Classifier):
    """One linear layer from the flattened input to the classes.

    Args:
        input_shape: Shape of an input, such as channels, rows and columns of an image.
        num_classes: Number of classes.
        init: Weight initialisation, see `modules.layers.initialize`.
        init_scale: The constant for init "constant", the standard deviation for "normal" and "truncated_normal".
        init_bias: Initial value of all biases; None for 0, or for torch's with init "default".
        **training: Loss, optimiser and scheduler, see `Classifier`.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        init: Init = "default",
        init_scale: float = 0.1,
        init_bias: float | None = None,
        **training: Any,
    ) -> None:
        super().__init__(num_classes, **training)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), num_classes))
        initialize(self.net, init, init_scale, init_bias)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self.net(images_BCHW)
        return logits_BK

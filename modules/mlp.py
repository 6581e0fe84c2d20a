"""Multi-layer perceptron."""

import math
from collections.abc import Sequence
from typing import Any, final

from torch import Tensor, nn

from modules.base import Classifier
from modules.layers import Activation, Init, fully_connected, initialize, require_rate


@final
class MLP(Classifier):
    """Fully connected layers from the flattened input to the classes.

    Args:
        input_shape: Shape of an input, such as channels, rows and columns of an image.
        num_classes: Number of classes.
        hidden: Units of each hidden layer.
        activation: Activation after each hidden layer.
        dropout: Dropout rate after each hidden layer; 0 for none.
        init: Weight initialisation, see `modules.layers.initialize`.
        init_scale: The constant for init "constant", the standard deviation for "normal" and "truncated_normal".
        init_bias: Initial value of all biases; None for 0, or for torch's with init "default".
        **training: Loss, optimiser and scheduler, see `Classifier`.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        hidden: Sequence[int] = (256, 128),
        activation: Activation = "relu",
        dropout: float = 0.0,
        init: Init = "default",
        init_scale: float = 0.1,
        init_bias: float | None = None,
        **training: Any,
    ) -> None:
        super().__init__(num_classes, **training)
        require_rate("dropout", dropout)
        sizes = [math.prod(input_shape), *hidden]
        layers = fully_connected(sizes, num_classes, activation=activation, dropout=dropout)
        self.net = nn.Sequential(nn.Flatten(), *layers)
        initialize(self.net, init, init_scale, init_bias)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self.net(images_BCHW)
        return logits_BK

"""The multi-layer perceptron."""

import math
from collections.abc import Sequence
from typing import Any, final

from torch import Tensor, nn

from modules.base import Classifier
from modules.layers import Activation, Init, fully_connected, initialize, require_rate


@final
class MLP(Classifier):
    """Fully connected layers from all values of an input to the classes.

    Args:
        input_shape: Shape of an input, such as channels, rows, columns of an image.
        num_classes: Number of classes.
        hidden: Units of each hidden layer.
        activation: After each hidden layer.
        dropout: Rate after each hidden layer, 0 for none.
        init: How weights begin: see `modules.layers.initialize`.
        init_scale: The constant, or the standard deviation, of "constant" and "normal" weights.
        **training: Loss, optimiser and scheduler of `Classifier`.
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
        **training: Any,
    ) -> None:
        super().__init__(num_classes, **training)
        require_rate("dropout", dropout)
        sizes = [math.prod(input_shape), *hidden]
        layers = fully_connected(sizes, num_classes, activation_name=activation, dropout=dropout)
        self.net = nn.Sequential(nn.Flatten(), *layers)
        initialize(self.net, init, init_scale)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self.net(images_BCHW)
        return logits_BK

"""Softmax regression."""

import math
from typing import Any, final

from torch import Tensor, nn

from modules.base import Classifier


@final
class LinearClassifier(Classifier):
    """One linear layer from all pixels to the classes.

    Args:
        input_shape: Channels, rows, columns of an image.
        num_classes: Number of classes.
        **training: Loss, optimiser and scheduler of `Classifier`.
    """

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int, **training: Any) -> None:
        super().__init__(num_classes, **training)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), num_classes))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self.net(images_BCHW)
        return logits_BK

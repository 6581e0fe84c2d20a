"""A small convolutional network."""

from typing import Any

from torch import Tensor, nn

from modules.base import Classifier


class ConvNet(Classifier):
    """Two convolutions and a linear layer.

    `Classifier` has the training step, loss, accuracy and optimiser. Any other LightningModule works too.

    Args:
        input_shape: Channels, rows and columns of an image; comes from the data.
        num_classes: Number of classes; comes from the data.
        width: Channels of the first convolution; the second has twice as many.
        dropout: Dropout rate before the last layer.
        **training: Loss, optimiser and scheduler, see `Classifier`.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        width: int = 16,
        dropout: float = 0.0,
        **training: Any,
    ) -> None:
        super().__init__(num_classes, **training)
        channels, height, width_in = input_shape
        self.net = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(2 * width * (height // 2) * (width_in // 2), num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits

"""Network that adds two digits, one above the other, with shared weights for both halves of the image."""

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from modules.base import Classifier
from modules.layers import require_rate, require_widths

KERNEL_SIZE = 5


@final
class PairedDigitsNet(Classifier):
    """Convolutions over the whole image, then one fully connected layer applied to each half of it.

    Both halves share its weights and bias, since a digit looks the same in either position. A final linear layer maps
    the features of both digits to the sum.

    Args:
        input_shape: Channels, rows and columns of an image. Rows must be a multiple of 2 * 2 ** len(channels).
        num_classes: Number of possible sums.
        channels: Output channels of each 5x5 convolution; ReLU and 2x2 max pooling follow each one.
        hidden: Units of the shared fully connected layer.
        dropout: Dropout rate after the shared layer; 0 for none.
        **training: Loss, optimiser and scheduler, see `Classifier`.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        channels: Sequence[int] = (32, 64),
        hidden: int = 1024,
        dropout: float = 0.0,
        **training: Any,
    ) -> None:
        super().__init__(num_classes, **training)
        require_rate("dropout", dropout)
        require_widths("channels", channels)
        require_widths("hidden", [hidden])
        input_channels, rows, columns = input_shape
        stride = 2 ** len(channels)
        if rows % (2 * stride) or columns < stride:
            raise ValueError(f"model.channels: {len(channels)} poolings do not leave two halves of {rows}x{columns}")
        layers: list[nn.Module] = []
        for n_in, n_out in zip([input_channels, *channels], channels, strict=False):
            layers += [nn.Conv2d(n_in, n_out, KERNEL_SIZE, padding=KERNEL_SIZE // 2), nn.ReLU(), nn.MaxPool2d(2)]
        self.trunk = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # as in ConvNet
        self.half_rows = rows // stride // 2
        features = [input_channels, *channels][-1] * self.half_rows * (columns // stride)
        self.read = nn.Sequential(nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.add = nn.Linear(2 * hidden, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        features_BCHW = self.trunk(images_BCHW)
        top = self.read(features_BCHW[:, :, : self.half_rows])
        bottom = self.read(features_BCHW[:, :, self.half_rows :])
        logits_BK: Tensor = self.add(torch.cat([top, bottom], 1))
        return logits_BK
